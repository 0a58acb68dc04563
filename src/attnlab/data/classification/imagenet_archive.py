"""Verifies and extracts ImageNet's official archives, resuming after an interruption."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from attnlab.data.download import checksum
from attnlab.data.progress import Steps
from attnlab.errors import AttnlabError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
CHECKSUMS = {
    TRAIN_ARCHIVE: "1d675b47d978889d74fa0da5fadfb00e",
    VAL_ARCHIVE: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT_ARCHIVE: "fa75699e90414af021442c21a62c3abf",
}
"""MD5 of each official archive, by file name."""

DEVKIT_DATA = "ILSVRC2012_devkit_t12/data"
"""The devkit's two files, in the archive and in the unpacked folder."""

WHERE_FROM = "ImageNet can only be downloaded with an account: sign up at https://image-net.org"

_META = "meta.mat"
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


class Devkit(NamedTuple):
    """Classes and validation labels of the devkit.

    Attributes:
        wnids: WordNet ids of the 1000 classes, sorted.
        val_wnids: WordNet id of each validation image, in order of number.
    """

    wnids: list[str]
    val_wnids: list[str]

    def wnid(self, file_name: str) -> str:
        """The WordNet id of the validation image ``ILSVRC2012_val_<number>.<suffix>``.

        Raises:
            AttnlabError: The name does not match, or the ground truth lacks the number.
        """
        match = _NUMBERED.fullmatch(file_name)
        if match is None:
            raise AttnlabError(
                f"'{file_name}' is not named like a validation image (ILSVRC2012_val_00000001.JPEG), so its "
                "class is unknown."
            )
        number = int(match[1])
        if not 1 <= number <= len(self.val_wnids):
            raise AttnlabError(
                f"The devkit's ground truth covers the images 1 to {len(self.val_wnids)}, not '{file_name}'."
            )
        return self.val_wnids[number - 1]


def extract_train(root: Path, folder: Path) -> None:
    """Extract ``ILSVRC2012_img_train.tar``, which holds one tar archive per class, to ``<folder>/<wnid>/…``.

    The class archives are read inside the large one. Everything goes to ``<folder>.part``, where a class's
    folder appears when complete; it is renamed at the end. After an interruption the next call resumes. An
    existing folder is left unchanged.

    Args:
        root: Folder of the archive, which is kept.
        folder: Where the class folders go.

    Raises:
        AttnlabError: The archive is missing, has a wrong checksum or an unsafe member, or the disk is full.
    """

    def fill(tar: tarfile.TarFile, part: Path) -> Iterator[int]:
        classes = [(_matched(archive, member, _CLASS_TAR)[1], member) for member in tar]
        left = [(wnid, member) for wnid, member in classes if not (part / wnid).is_dir()]
        _check_room(archive, part, [member for _, member in left])
        for wnid, member in left:
            unfinished = part / f"{wnid}.part"
            unfinished.mkdir(exist_ok=True)
            name = re.compile(rf"{wnid}_\d+\.JPEG")
            with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as class_tar:
                for image in class_tar:
                    _matched(archive, image, name)
                    if not _is_whole(unfinished / image.name, image):
                        _place(class_tar, image, unfinished)
                    yield member.offset_data + image.offset_data + image.size
            unfinished.rename(part / wnid)

    archive = root / TRAIN_ARCHIVE
    _extract(archive, folder, fill)


def extract_val(root: Path, folder: Path) -> None:
    """Extract ``ILSVRC2012_img_val.tar``, a flat archive, as `extract_train` does the training images.

    The devkit's ground truth gives the images' classes.

    Args:
        root: Folder of the archive and the devkit, which are kept.
        folder: Where the class folders go.

    Raises:
        AttnlabError: As `extract_train`; or the devkit is missing, damaged or does not match, or scipy is
            missing.
    """
    if is_filled(folder):
        return
    devkit = read_devkit(root)

    def fill(tar: tarfile.TarFile, part: Path) -> Iterator[int]:
        images = [member for member in tar if _matched(archive, member, _VAL_IMAGE)]
        if len(images) != len(devkit.val_wnids):
            raise AttnlabError(
                f"'{archive}' holds {len(images)} images, but the devkit's ground truth has "
                f"{len(devkit.val_wnids)}: they do not match."
            )
        placed = [(image, part / devkit.wnid(image.name)) for image in images]
        left = [(image, target) for image, target in placed if not _is_whole(target / image.name, image)]
        _check_room(archive, part, [image for image, _ in left])
        for image, target in left:
            _place(tar, image, target)
            yield image.offset_data + image.size

    archive = root / VAL_ARCHIVE
    _extract(archive, folder, fill)


def is_filled(folder: Path) -> bool:
    """Whether it is a folder that is not empty."""
    return folder.is_dir() and any(folder.iterdir())


def part_of(folder: Path) -> Path:
    """Where an incomplete extraction to a folder is kept."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.part")


def read_devkit(root: Path) -> Devkit:
    """Read the devkit in a folder, from its unpacked ``ILSVRC2012_devkit_t12`` or its archive.

    Raises:
        AttnlabError: It is missing, has a wrong checksum or cannot be read, or scipy is missing.
    """
    if not ((root / DEVKIT_DATA).is_dir() or (root / DEVKIT_ARCHIVE).is_file()):
        raise AttnlabError(
            f"Neither '{root / DEVKIT_ARCHIVE}' nor '{root / DEVKIT_DATA}' exists. This devkit holds the "
            f"classes of the validation images: put it there. {WHERE_FROM}."
        )
    meta, truth = _devkit_files(root)
    wnids = _synsets(meta)
    numbers = [int(line) if line.isdecimal() else 0 for line in truth.decode("ascii", "replace").split()]
    strange = [number for number in numbers if number not in wnids]
    if strange or not numbers:
        wrong = f"names a class, {strange[0]}, that its {_META} does not have" if strange else "is empty"
        raise AttnlabError(f"The devkit in '{root}' is damaged: its {_GROUND_TRUTH} {wrong}.")
    return Devkit(sorted(wnids.values()), [wnids[number] for number in numbers])


def _devkit_files(root: Path) -> tuple[bytes, bytes]:
    """The contents of ``meta.mat`` and of the ground truth."""
    folder, archive = root / DEVKIT_DATA, root / DEVKIT_ARCHIVE
    if folder.is_dir():
        try:
            return (folder / _META).read_bytes(), (folder / _GROUND_TRUTH).read_bytes()
        except OSError as error:
            raise AttnlabError(f"The devkit in '{folder}' is incomplete: {error}.") from error
    _verify(archive)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            meta, truth = (tar.extractfile(f"{DEVKIT_DATA}/{name}") for name in (_META, _GROUND_TRUTH))
            return meta.read() if meta else b"", truth.read() if truth else b""
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise AttnlabError(f"Cannot read '{archive}': {error}.") from error


def _synsets(meta: bytes) -> dict[int, str]:
    """The low-level synsets of ``meta.mat``: WNIDs by ILSVRC2012_ID."""
    try:
        loadmat = import_module("scipy.io").loadmat
    except ImportError as error:
        raise AttnlabError(
            "The classes of ImageNet's validation images are in a MATLAB file, which needs scipy: "
            "pip install scipy."
        ) from error
    try:
        rows = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"].reshape(-1)
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if int(row["num_children"]) == 0}
    except Exception as error:  # The reader raises errors of many kinds on a damaged file.
        raise AttnlabError(f"Cannot read the devkit's {_META}: {error}.") from error


def _verify(archive: Path) -> None:
    found, expected = checksum(archive), CHECKSUMS[archive.name]
    if found != expected:
        raise AttnlabError(
            f"'{archive}' has the checksum {found}, but the official archive has {expected}. The file is "
            "damaged or a different one: copy or download it again."
        )


def _verify_once(archive: Path) -> None:
    """Verify an archive, unless a note beside it says that the unchanged file was verified."""
    note = archive.with_name(f"{archive.name}.verified")
    stat = archive.stat()
    text = f"{CHECKSUMS[archive.name]} {stat.st_size} {stat.st_mtime_ns}\n"
    if note.is_file() and note.read_text() == text:
        return
    _verify(archive)
    with suppress(OSError):  # The archive may be in a read-only folder.
        note.write_text(text)


def _extract(archive: Path, folder: Path, fill: Callable[[tarfile.TarFile, Path], Iterable[int]]) -> None:
    """Fill a folder from a verified archive, under another name until it is complete.

    ``fill`` is called with the open archive and the temporary folder, and yields its position in the archive
    in bytes. An existing folder is left unchanged.
    """
    if is_filled(folder):
        return
    if not archive.is_file():
        raise AttnlabError(f"'{archive}' does not exist: put it there. {WHERE_FROM}.")
    try:
        with _alone(folder):
            if is_filled(folder):  # By the run that this one waited for.
                return
            _verify_once(archive)
            part = part_of(folder)
            part.mkdir(parents=True, exist_ok=True)
            with tarfile.open(archive, "r:") as tar, Steps(in_bytes=True) as progress:
                task = progress.add_task(f"Extracting {archive.name}", total=archive.stat().st_size)
                for position in fill(tar, part):
                    progress.update(task, completed=position)
            part.rename(folder.resolve())
    except tarfile.TarError as error:
        raise AttnlabError(f"Cannot read '{archive}': {error}. Copy or download it again.") from error
    except OSError as error:
        raise AttnlabError(
            f"Cannot extract '{archive}' to '{folder}': {error}. The files extracted so far are in "
            f"'{part_of(folder)}'; run again to resume."
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other run or node is extracting to the folder: they may share a disk."""
    if fcntl is None:
        yield
        return
    note = folder.with_name(f"{folder.name}.lock")
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            rank_zero_info(f"Another run is extracting to '{folder}'; waiting for it to finish.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # A file system without locks.
            pass
        yield
        note.unlink(missing_ok=True)


def _matched(archive: Path, member: tarfile.TarInfo, name: re.Pattern[str]) -> re.Match[str]:
    """Match a member's name; it must be a regular file with such a name, which keeps it inside the folder."""
    match = name.fullmatch(member.name)
    if match is None or not member.isfile():
        raise AttnlabError(
            f"'{archive}' was not extracted: its member '{member.name}' is not in the official archive."
        )
    return match


def _is_whole(path: Path, member: tarfile.TarInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.size


def _place(tar: tarfile.TarFile, image: tarfile.TarInfo, folder: Path) -> None:
    """Extract an image under another name until it is complete."""
    unfinished = image.replace(name=f"{image.name}.part", deep=False)
    tar.extract(unfinished, folder, set_attrs=False, filter="data")
    (folder / unfinished.name).replace(folder / image.name)


def _check_room(archive: Path, folder: Path, members: Iterable[tarfile.TarInfo]) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if free < needed:
        raise AttnlabError(
            f"The rest of '{archive}' needs {needed / 1e9:.1f} GB, but the disk of '{folder}' has "
            f"{free / 1e9:.1f} GB free. Free some space, or make the folder a link to another disk."
        )
