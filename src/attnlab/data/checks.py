"""Looking at every file of a data set before the first step, so that a bad one costs no night."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from attnlab.data.images import FILE_HINT, read_image, read_mask
from attnlab.data.segmentation_sets import LabelledImage
from attnlab.errors import AttnlabError


def find_problems(
    items: Sequence[LabelledImage | Path], num_classes: int, ignore_index: int
) -> dict[LabelledImage | Path, str]:
    """Decode every file in full and compare masks with images.

    In a distributed run each process looks at its share and all learn of all problems, so that they go on
    with the same items, or stop together.

    Args:
        items: Images with masks, or pictures alone.
        num_classes: Masks may hold 0 … num_classes - 1,
        ignore_index: and this.

    Returns:
        What is wrong with an item, for each item with which something is.
    """
    shared = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    share = range(rank, len(items), world)

    def look(position: int) -> str | None:
        return _problem(items[position], num_classes, ignore_index)

    # Decoders release the interpreter's lock, so threads do.
    with ThreadPoolExecutor() as pool:
        found = {k: text for k, text in zip(share, pool.map(look, share), strict=True) if text}
    if shared:
        parts: list[dict[int, str]] = [{} for _ in range(world)]
        dist.all_gather_object(parts, found)
        found = {position: text for part in parts for position, text in part.items()}
    return {items[position]: found[position] for position in sorted(found)}


def summary(problems: Sequence[str], total: int, what: str, shown: int = 5) -> str:
    """The first problems, one a line, under a line that counts them all."""
    lines = [f"{len(problems)} of {total} files {what} cannot be used:"]
    lines += [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  … and {len(problems) - shown} more.")
    return "\n".join(lines)


def _problem(item: LabelledImage | Path, num_classes: int, ignore_index: int) -> str | None:
    try:
        if isinstance(item, Path):
            read_image(item)
            return None
        return _mismatch(item, num_classes, ignore_index)
    except AttnlabError as error:
        return str(error).removesuffix(FILE_HINT).rstrip()


def _mismatch(item: LabelledImage, num_classes: int, ignore_index: int) -> str | None:
    size = read_image(item.image, exif=False).shape[-2:]
    mask = read_mask(item.mask)
    if mask.shape != size:
        text = f"The mask '{item.mask}' is {_by(mask.shape)}, its image '{item.image}' is {_by(size)} pixels."
        if read_image(item.image).shape[-2:] == mask.shape:
            text += (
                " They agree once the image is turned as its EXIF orientation says, which is not done for "
                "images with masks: store it upright, without that entry."
            )
        return text
    counts = torch.bincount(mask.flatten(), minlength=256)
    values = [value for value in counts.nonzero().flatten().tolist() if value >= num_classes]
    strange = [value for value in values if value != ignore_index]
    if strange:
        listed = ", ".join(map(str, strange[:8])) + (", …" if len(strange) > 8 else "")
        return (
            f"The mask '{item.mask}' holds the values {listed}; with {num_classes} classes it may hold "
            f"0..{num_classes - 1} and {ignore_index} (ignore)."
        )
    return None


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
