"""Images and masks in two trees of folders: which belong together, and to which split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from attnlab.data.folders import files_below, is_picture, names_in
from attnlab.data.images import IMAGE_SUFFIXES
from attnlab.data.names import SPLIT_NAMES, listed
from attnlab.data.segmentation.sets import LabelledImage
from attnlab.errors import AttnlabError

SPLIT = "{split}"
"""What stands for a split's folder in a pattern."""


def split_folder(root: Path, pattern: str, split: str, name: str) -> Path | None:
    """The folder that a pattern names for a split, or None if it is not there.

    Args:
        root: The data set's folder.
        pattern: A folder below it, with ``{split}`` in the place of the split's name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        name: What its folder is called. If it is one of the usual names, the others are tried, too.

    Raises:
        AttnlabError: Several may be meant.
    """
    usual = root / pattern.replace(SPLIT, name)
    if usual.is_dir() or name not in SPLIT_NAMES[split]:
        return usual if usual.is_dir() else None
    found = [
        folder for call in SPLIT_NAMES[split] if (folder := root / pattern.replace(SPLIT, call)).is_dir()
    ]
    if len(found) > 1:
        raise AttnlabError(
            f"There is no '{usual}', and {listed([str(folder) for folder in found])} may be meant. Name the "
            f"folder with --data.{split}_folder."
        )
    return found[0] if found else None


def pairs_in(
    images: Path, masks: Path, image_suffix: str, mask_suffix: str
) -> tuple[list[LabelledImage], list[Path]]:
    """The images in a folder and those below it, with their masks in another.

    An image and its mask have the same path below their folders, but for their suffixes.

    Args:
        images: The folder with the images.
        masks: The folder with the masks; it may be the same.
        image_suffix: How the images' names end. Without a picture's extension at its end, any will do.
        mask_suffix: How the masks' names end, likewise.

    Returns:
        The images in order of name, with the masks that they have or should have, which may not be there;
        and the masks that belong to no image.

    Raises:
        AttnlabError: There is no image, or none has a mask; or two files are of one name but for what follows
            it.
    """
    by_name = _by_name(masks, mask_suffix)
    pictures = _by_name(images, image_suffix, set(by_name.values()))
    if not pictures:
        raise AttnlabError(
            f"There is no image in '{images}' whose name ends with {_ending(image_suffix)}. "
            f"{_holds(images)} Set data.images and data.image_suffix."
        )
    default = mask_suffix if _has_extension(mask_suffix) else f"{mask_suffix}.png"
    items = [
        LabelledImage(name, image, by_name.get(name, masks / f"{name}{default}"))
        for name, image in sorted(pictures.items())
    ]
    if not any(item.name in by_name for item in items):
        jpegs = "" if by_name else _jpegs(masks)
        raise AttnlabError(
            f"None of the {len(items)} images in '{images}' has a mask in '{masks}': that of "
            f"'{items[0].image.relative_to(images)}', for instance, would be "
            f"'{items[0].mask.relative_to(masks)}'. {_holds(masks)}{jpegs} Set data.masks, data.image_suffix "
            "and data.mask_suffix."
        )
    return items, [mask for name, mask in sorted(by_name.items()) if name not in pictures]


def validated_on(names: Collection[str], share: float, seed: int) -> set[str]:
    """A share of the names, at least one and not all, that depends on nothing but names and seed.

    Each name is in or out by its own hash, so that a name that comes or goes moves hardly any other.

    Args:
        names: At least two.
        share: Between 0 and 1.
        seed: Another one chooses others.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    return set(order[: min(max(1, round(share * len(order))), len(order) - 1)])


def _by_name(folder: Path, suffix: str, without: Collection[Path] = ()) -> dict[str, Path]:
    """The pictures that end with a suffix, by their paths without it."""
    found: dict[str, Path] = {}
    for file in files_below(folder):
        name = _name(file, suffix)
        path = folder / file
        if name is None or path in without:
            continue
        if name in found:
            raise AttnlabError(
                f"'{found[name]}' and '{path}' are of one name, so it is not known which of them is meant. "
                "Say how their names end with data.image_suffix or data.mask_suffix, or take one away."
            )
        found[name] = path
    return found


def _name(file: str, suffix: str) -> str | None:
    """A picture's name without its suffix; None for another file, or another suffix."""
    if not is_picture(file):
        return None
    stem = file if _has_extension(suffix) else file[: file.rindex(".")]
    return stem[: len(stem) - len(suffix)] if stem.lower().endswith(suffix.lower()) else None


def _has_extension(suffix: str) -> bool:
    return suffix.lower().endswith(IMAGE_SUFFIXES)


def _ending(suffix: str) -> str:
    kinds = " ".join(IMAGE_SUFFIXES)
    return f"'{suffix}'" if _has_extension(suffix) else f"'{suffix}' and one of {kinds}" if suffix else kinds


def _holds(folder: Path) -> str:
    files = files_below(folder)
    if not files:
        return f"It holds {listed(names_in(folder)) or 'nothing'}."
    return f"It holds {len(files)} files, e.g. {' and '.join(files[:2])}."


def _jpegs(folder: Path) -> str:
    if not any(file.lower().endswith((".jpg", ".jpeg")) for file in files_below(folder)):
        return ""
    return " JPEG changes the values of pixels, so it is not for masks: write them as PNG."
