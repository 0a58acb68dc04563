"""Fetching Pascal VOC: resumed where it stopped, verified, and never half unpacked."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from attnlab.errors import AttnlabError

OFFICIAL_HOST = "http://host.robots.ox.ac.uk/pascal/VOC/"
TIMEOUT_SECONDS = 30.0
"""How long a server may keep silent."""

_CHUNK = 1 << 18
_BLOCK = 1 << 22


class Archive(NamedTuple):
    """An official archive.

    Attributes:
        name: File name, the same on every mirror.
        folder: Where it is on the official host.
        md5: Its checksum.
    """

    name: str
    folder: str
    md5: str


ARCHIVES = {
    "2007": [
        Archive("VOCtrainval_06-Nov-2007.tar", "voc2007/", "c52e279531787c972589f7e41ab4ae64"),
        Archive("VOCtest_06-Nov-2007.tar", "voc2007/", "b6e924de25625d8de591ea690078ad9f"),
    ],
    "2012": [Archive("VOCtrainval_11-May-2012.tar", "voc2012/", "6cd6e144f989b92b3379bac3b3de84fd")],
}


def download_voc(root: str | Path, year: str, mirror: str | None = None) -> Path:
    """Fetch and unpack a release.

    Archives are kept in ``root`` while they are fetched, and removed once unpacked. One that was put there by
    hand is used. Interrupted at any moment, the next call goes on.

    Args:
        root: The folder that is to hold ``VOCdevkit``.
        year: ``"2007"`` (both archives: test has masks) or ``"2012"``.
        mirror: Address of a folder with the archives, instead of the official host.

    Returns:
        The release's folder, ``<root>/VOCdevkit/VOC<year>``.

    Raises:
        AttnlabError: No connection, a server's refusal, a wrong checksum, no room, an unsafe archive, or the
            release's folder exists already.
    """
    root = Path(root)
    target = root / "VOCdevkit" / f"VOC{year}"
    if target.exists():
        raise AttnlabError(f"'{target}' is there, but not complete. Move it away to have it fetched anew.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        archives = ARCHIVES[year]
        files = [fetch(_address(archive, mirror), root / archive.name, archive.md5) for archive in archives]
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as folder:
            for file in files:
                unpack(file, Path(folder))
            unpacked = Path(folder) / "VOCdevkit" / f"VOC{year}"
            if not unpacked.is_dir():
                raise AttnlabError(f"The archives {', '.join(map(str, files))} hold no VOCdevkit/VOC{year}.")
            target.parent.mkdir(exist_ok=True)
            unpacked.rename(target)
    except OSError as error:
        raise AttnlabError(f"Cannot write Pascal VOC to '{root}': {error}.") from error
    for file in files:
        file.unlink()
    return target


def fetch(url: str, path: Path, md5: str) -> Path:
    """Download a file, going on with what an earlier attempt left in ``<path>.part``.

    Args:
        url: Where it is.
        path: Where it is to go. A file that is there is not fetched again, but verified.
        md5: Its checksum.

    Returns:
        The path.

    Raises:
        AttnlabError: The transfer failed, and what arrived is kept for the next attempt; or the checksum is
            wrong, and what arrived is removed.
    """
    if path.exists():
        found = checksum(path)
        if found != md5:
            raise AttnlabError(f"'{path}' has the checksum {found}, not {md5}: remove it to have it fetched.")
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        _transfer(url, part)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise AttnlabError(
            f"Could not download {url}: {getattr(error, 'reason', None) or error}. What arrived is kept in "
            f"'{part}'; call again to go on. Or name another server with --data.mirror, or put {path.name} "
            f"into '{path.parent}' by hand."
        ) from error
    found = checksum(part)
    if found != md5:
        part.unlink()
        raise AttnlabError(
            f"What came from {url} has the checksum {found}, not {md5}: it was damaged on the way or is "
            "another file, and has been removed. Call again, or name another server with --data.mirror."
        )
    part.rename(path)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive that holds nothing but files and folders within the folder.

    Raises:
        AttnlabError: It holds a link, a device, or a path that leads outside; or it is damaged.
    """
    try:
        with tarfile.open(archive) as tar, progress_bar() as progress:
            task = progress.add_task(f"Unpacking {archive.name}", total=archive.stat().st_size)
            for member in tar:
                check_member(archive, member)
                tar.extract(member, folder, filter="data")
                progress.update(task, completed=member.offset_data + member.size)
    except tarfile.TarError as error:
        raise AttnlabError(
            f"'{archive}' cannot be unpacked: {error}. Remove it and fetch it again."
        ) from error


def check_member(archive: Path, member: tarfile.TarInfo) -> None:
    """Refuse a member of a tar archive that is neither a file nor a folder within the folder.

    Raises:
        AttnlabError: It is a link or a device, or its path leads outside.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise AttnlabError(
            f"'{archive}' is not unpacked: its member '{member.name}' is a link or a device, or "
            "leads outside. This is not the official archive."
        )


def checksum(path: Path) -> str:
    """The MD5 of a file, in hexadecimal digits, with a progress bar."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, progress_bar() as progress:
        task = progress.add_task(f"Verifying {path.name}", total=path.stat().st_size)
        while block := file.read(_BLOCK):
            digest.update(block)
            progress.advance(task, len(block))
    return digest.hexdigest()


def progress_bar() -> Progress:
    """A bar that counts bytes, and is gone at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        transient=True,
    )


def _address(archive: Archive, mirror: str | None) -> str:
    if mirror is None:
        return OFFICIAL_HOST + archive.folder + archive.name
    return f"{mirror.rstrip('/')}/{archive.name}"


def _transfer(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks of the file at ``url``; go on after a cut, so long as bytes arrive."""
    while True:
        before = _size(part)
        try:
            return _transfer_once(url, part, before)
        except (HTTPException, TimeoutError, ConnectionError):
            if _size(part) <= before:
                raise


def _transfer_once(url: str, part: Path, have: int) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        # Nothing lies beyond what is there already: the checksum will tell whether it is the file.
        if error.code == 416 and have:
            return
        raise
    with response, progress_bar() as progress:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # A server without ranges sends the file from its start.
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        task = progress.add_task(f"Downloading {url.rsplit('/', 1)[-1]}", total=total, completed=have)
        with part.open("ab" if have else "wb") as file:
            while block := response.read(_CHUNK):
                file.write(block)
                progress.advance(task, len(block))
            arrived = file.tell()
    if total is not None and arrived < total:
        raise ConnectionError(f"the connection ended after {arrived} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
