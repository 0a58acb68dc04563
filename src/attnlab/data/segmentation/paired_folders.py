"""Pairs images and masks in two folder trees."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from attnlab.data.folders import files_below, is_picture, names_in
from attnlab.data.images import IMAGE_SUFFIXES
from attnlab.data.names import SPLIT_NAMES, listed
from attnlab.data.segmentation.sets import ImageAndMask
from attnlab.errors import AttnlabError

SPLIT = "{split}"
"""Placeholder of a split's folder in a pattern."""


def split_folder(root: Path, pattern: str, split: str, name: str) -> Path | None:
    """The folder that a pattern gives for a split, or None if it does not exist.

    Args:
        root: The data set's folder.
        pattern: A folder in it, with ``{split}`` in place of the split's name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        name: The split's folder name. If it is a usual one, the alternatives are tried, too.

    Raises:
        AttnlabError: It is ambiguous.
    """
    usual = root / pattern.replace(SPLIT, name)
    if usual.is_dir() or name not in SPLIT_NAMES[split]:
        return usual if usual.is_dir() else None
    found = [
        folder for call in SPLIT_NAMES[split] if (folder := root / pattern.replace(SPLIT, call)).is_dir()
    ]
    if len(found) > 1:
        raise AttnlabError(
            f"There is no '{usual}', but {listed([str(folder) for folder in found])} may be meant. Choose "
            f"one with --data.{split}_folder."
        )
    return found[0] if found else None


def pairs_in(
    images: Path, masks: Path, image_suffix: str, mask_suffix: str
) -> tuple[list[ImageAndMask], list[Path]]:
    """The images in a folder, recursively, with their masks in another.

    An image and its mask have the same relative path except for the suffix.

    Args:
        images: The folder with the images.
        masks: The folder with the masks; it may be the same.
        image_suffix: End of the images' names. Without a file extension, any image format matches.
        mask_suffix: End of the masks' names, likewise.

    Returns:
        The images sorted by name with their masks, which may not exist; and the masks without an image.

    Raises:
        AttnlabError: There are no images, none has a mask, or two files differ only in extension.
    """
    by_name = _by_name(masks, mask_suffix)
    pictures = _by_name(images, image_suffix, set(by_name.values()))
    if not pictures:
        raise AttnlabError(
            f"There are no images in '{images}' whose names end in {_ending(image_suffix)}. "
            f"{_holds(images)} Set data.images and data.image_suffix."
        )
    default = mask_suffix if _has_extension(mask_suffix) else f"{mask_suffix}.png"
    items = [
        ImageAndMask(name, image, by_name.get(name, masks / f"{name}{default}"))
        for name, image in sorted(pictures.items())
    ]
    if not any(item.name in by_name for item in items):
        jpegs = "" if by_name else _jpegs(masks)
        raise AttnlabError(
            f"None of the {len(items)} images in '{images}' has a mask in '{masks}': for "
            f"'{items[0].image.relative_to(images)}', for example, expected "
            f"'{items[0].mask.relative_to(masks)}'. {_holds(masks)}{jpegs} Set data.masks, "
            "data.image_suffix and data.mask_suffix."
        )
    return items, [mask for name, mask in sorted(by_name.items()) if name not in pictures]


def validated_on(names: Collection[str], share: float, seed: int) -> set[str]:
    """Choose a share of the names, at least one and not all, from names and seed alone.

    Each name is chosen by its own hash, so that adding or removing names hardly affects others.

    Args:
        names: At least two.
        share: Between 0 and 1.
        seed: Seed of the choice.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    return set(order[: min(max(1, round(share * len(order))), len(order) - 1)])


def _by_name(folder: Path, suffix: str, without: Collection[Path] = ()) -> dict[str, Path]:
    """The images with a suffix, by their paths without it."""
    found: dict[str, Path] = {}
    for file in files_below(folder):
        name = _name(file, suffix)
        path = folder / file
        if name is None or path in without:
            continue
        if name in found:
            raise AttnlabError(
                f"'{found[name]}' and '{path}' have the same name, so it is unclear which to use. Set "
                "data.image_suffix or data.mask_suffix, or remove one."
            )
        found[name] = path
    return found


def _name(file: str, suffix: str) -> str | None:
    """An image's name without the suffix; None for another file or suffix."""
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
        return f"It contains {listed(names_in(folder)) or 'nothing'}."
    return f"It contains {len(files)} files, e.g. {' and '.join(files[:2])}."


def _jpegs(folder: Path) -> str:
    if not any(file.lower().endswith((".jpg", ".jpeg")) for file in files_below(folder)):
        return ""
    return " JPEG compression changes pixel values, so masks must be saved as PNG."
