"""Downloads of Pascal VOC and COCO: resumed, verified, and unpacked completely or not at all."""

from __future__ import annotations

import hashlib
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from attnlab.data.progress import Steps
from attnlab.errors import AttnlabError

OFFICIAL_HOST = "http://host.robots.ox.ac.uk/pascal/VOC/"
COCO_HOST = "http://images.cocodataset.org/"
TIMEOUT_SECONDS = 30.0
"""Timeout of a silent server, in seconds."""

_CHUNK = 1 << 18


class Archive(NamedTuple):
    """An official archive.

    Attributes:
        name: File name, the same on every mirror.
        folder: Its folder on the official host.
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
"""The official archives of Pascal VOC by release; 2007's test archives include masks and boxes."""

COCO_ARCHIVES = {
    "annotations": Archive(
        "annotations_trainval2017.zip", "annotations/", "f4bbac642086de4f52a3fdda2de5fa2c"
    ),
    "train2017": Archive("train2017.zip", "zips/", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val2017": Archive("val2017.zip", "zips/", "442b8da7639aecaf257c1dceb8ba8c80"),
}
"""The official archives of COCO 2017 by the folder each contains."""


def refuse_idle_mirror(mirror: str | None, download: bool) -> None:
    """Reject a mirror without ``download``."""
    if mirror is not None and not download:
        raise AttnlabError("data.mirror is set, but data.download is off, so it would not be used.")


def how_to_get_voc(year: str) -> str:
    """Advice for a missing release of Pascal VOC (``2007``, ``2012``, or both)."""
    archives = "the official archive" if year == "2012" else "the official archives"
    return (
        f"Set --data.root to its folder, or download {archives} with --data.download true (from "
        f"{OFFICIAL_HOST})."
    )


def download_voc(root: str | Path, year: str, mirror: str | None = None) -> Path:
    """Download and unpack a release of Pascal VOC to ``<root>/VOCdevkit/VOC<year>``; see `install`."""
    return install(root, f"VOCdevkit/VOC{year}", ARCHIVES[year], OFFICIAL_HOST, mirror)


def download_coco(root: str | Path, folder: str, mirror: str | None = None) -> Path:
    """Download and unpack a part of COCO 2017, ``annotations`` or a folder of images; see `install`."""
    return install(root, folder, [COCO_ARCHIVES[folder]], COCO_HOST, mirror)


def install(
    root: str | Path, folder: str, archives: Sequence[Archive], host: str, mirror: str | None = None
) -> Path:
    """Download archives and install a folder that they contain.

    Archives are kept in ``root`` during the download and removed once unpacked; one that is already there is
    used. After an interruption the next call resumes.

    Args:
        root: Where the folder goes.
        folder: Its path in the archives and in ``root``; returned.
        archives: What to download.
        host: Server of the archives' folders.
        mirror: URL of a folder with the archives, instead of the host.

    Raises:
        AttnlabError: No connection, server error, wrong checksum, full disk, unsafe archive, or the folder
            exists already.
    """
    root = Path(root)
    target = root / folder
    if target.exists():
        raise AttnlabError(f"'{target}' is incomplete. Move it away to download it again.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        files = []
        for name, place, md5 in archives:
            source = host + place if mirror is None else f"{mirror.rstrip('/')}/"
            files.append(fetch(source + name, root / name, md5))
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as temporary:
            for file in files:
                unpack(file, Path(temporary))
            unpacked = Path(temporary) / folder
            if not unpacked.is_dir():
                raise AttnlabError(f"The archives {', '.join(map(str, files))} contain no {folder}.")
            target.parent.mkdir(exist_ok=True)
            unpacked.rename(target)
    except OSError as error:
        raise AttnlabError(f"Cannot write the data set to '{root}': {error}.") from error
    for file in files:
        file.unlink()
    return target


def fetch(url: str, path: Path, md5: str) -> Path:
    """Download a file, resuming from ``<path>.part`` of an earlier attempt.

    Args:
        url: The address.
        path: Where it goes; returned. An existing file is only verified.
        md5: Its checksum.

    Raises:
        AttnlabError: The transfer failed (the part received is kept for the next attempt), or the checksum is
            wrong (the file is removed).
    """
    if path.exists():
        found = checksum(path)
        if found != md5:
            raise AttnlabError(
                f"'{path}' has the checksum {found}, not {md5}: remove it to download it again."
            )
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        _transfer(url, part)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise AttnlabError(
            f"Could not download {url}: {getattr(error, 'reason', None) or error}. The part received is in "
            f"'{part}'; run again to resume. Or choose another server with --data.mirror, or put "
            f"{path.name} into '{path.parent}' yourself."
        ) from error
    found = checksum(part)
    if found != md5:
        part.unlink()
        raise AttnlabError(
            f"The file from {url} has the checksum {found}, not {md5}: it is damaged or a different file, "
            "and was removed. Try again, or choose another server with --data.mirror."
        )
    part.rename(path)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive that contains only files and folders inside the folder.

    Raises:
        AttnlabError: It contains a link, a device or a path outside the folder, or is damaged.
    """
    extract = _extracted_zip if archive.suffix == ".zip" else _extracted_tar
    try:
        with Steps(in_bytes=True) as progress:
            task = progress.add_task(f"Unpacking {archive.name}", total=archive.stat().st_size)
            for position in extract(archive, folder):
                progress.update(task, completed=position)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise AttnlabError(f"Cannot unpack '{archive}': {error}. Remove it and download it again.") from error


def _extracted_tar(archive: Path, folder: Path) -> Iterator[int]:
    """Unpack, yielding the position in the archive after each member, in bytes."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _refuse_unsafe(archive, member.name, member.isfile() or member.isdir())
            tar.extract(member, folder, filter="data")
            yield member.offset_data + member.size


def _extracted_zip(archive: Path, folder: Path) -> Iterator[int]:
    """The same for a zip archive."""
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # The upper half holds the Unix mode, if any.
            kind = stat.S_IFMT(member.external_attr >> 16)
            _refuse_unsafe(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            file.extract(member, folder)
            yield member.header_offset + member.compress_size


def _refuse_unsafe(archive: Path, name: str, plain: bool) -> None:
    """Reject a member that is neither a file nor a folder, or leads outside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not plain:
        raise AttnlabError(
            f"'{archive}' was not unpacked: its member '{name}' is a link or a device, or leads outside. "
            "This is not the official archive."
        )


def checksum(path: Path) -> str:
    """The MD5 of a file, in hexadecimal digits, with a progress bar."""
    with (
        Steps(in_bytes=True) as progress,
        progress.open(path, "rb", description=f"Verifying {path.name}") as f,
    ):
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()  # type: ignore[arg-type]


def _transfer(url: str, part: Path) -> None:
    """Append the rest of the file at ``url`` to ``part``; reconnect as long as bytes arrive."""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _transfer_once(url, part, before)
        except (HTTPException, TimeoutError, ConnectionError):
            if not part.exists() or part.stat().st_size <= before:
                raise


def _transfer_once(url: str, part: Path, have: int) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        # Nothing is left to download; the checksum decides.
        if error.code == 416 and have:
            return
        raise
    with response, Steps(in_bytes=True) as progress:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # A server without range requests sends the whole file.
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
