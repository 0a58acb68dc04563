"""Looking at every file of a data set before the first step, so that a bad one costs no night."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch.distributed as dist

from attnlab.data.images import FILE_HINT, read_image, read_mask
from attnlab.data.mask_values import values_of
from attnlab.data.progress import Steps
from attnlab.data.segmentation_sets import LabelledImage
from attnlab.errors import AttnlabError

_JOB = 64

Found = TypeVar("Found")


class Look(NamedTuple):
    """What was found out about a file.

    Attributes:
        problem: What is wrong with it, or None.
        values: Number of pixels by mask value; empty for pictures without masks.
    """

    problem: str | None
    values: dict[int, int]


def look_at_files(
    items: Sequence[LabelledImage | Path], num_classes: int, ignore_index: int
) -> dict[LabelledImage | Path, Look]:
    """Decode every file in full and compare masks with images.

    In a distributed run each process looks at its share and all learn of all problems, so that they go on
    with the same items, or stop together.

    Args:
        items: Images with masks, or pictures alone.
        num_classes: Masks may hold 0 … num_classes - 1,
        ignore_index: and this.

    Returns:
        What was found, for each item.
    """

    def look(position: int) -> Look:
        return _look(items[position], num_classes, ignore_index)

    found = look_at_all(len(items), look)
    return {items[position]: found[position] for position in found}


def look_at_all(
    count: int, look: Callable[[int], Found | None], title: str | None = None
) -> dict[int, Found]:
    """Look at things 0 … count - 1, in threads, and in a distributed run each process at its share.

    All processes learn what all have found.

    Args:
        count: The number of things.
        look: Says what is to be known of one, e.g. what is wrong with it, or None. Called from many threads.
        title: Stands before a progress bar, which the first process then shows.

    Returns:
        What was said, by position, in rising order, of those of which something was.
    """
    shared = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    share = range(rank, count, world)
    # Some hundred to a job: a million jobs would take gigabytes, and longer to hand out than to do.
    parts = [share[start : start + _JOB] for start in range(0, len(share), _JOB)]

    def look_at(part: range) -> dict[int, Found]:
        said = ((position, look(position)) for position in part)
        return {position: what for position, what in said if what is not None}

    found: dict[int, Found] = {}
    shows = title is not None and rank == 0
    with ThreadPoolExecutor() as pool, _progress(title or "", len(share), shows) as advance:
        # Decoders release the interpreter's lock, so threads do.
        for part, said in zip(parts, pool.map(look_at, parts), strict=True):
            found |= said
            advance(len(part))
    if shared:
        of_all: list[dict[int, Found]] = [{} for _ in range(world)]
        dist.all_gather_object(of_all, found)
        found = {position: what for said in of_all for position, what in said.items()}
    return dict(sorted(found.items()))


def summary(problems: Sequence[str], total: int, what: str, shown: int = 5) -> str:
    """The first problems, one a line, under a line that counts them all."""
    lines = [f"{len(problems)} of {total} files {what} cannot be used:"]
    lines += [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  … and {len(problems) - shown} more.")
    return "\n".join(lines)


@contextmanager
def _progress(title: str, total: int, shows: bool) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, if it is to be shown; yields what moves it on by a number of steps."""
    if not shows:
        yield lambda steps: None
        return
    with Steps() as progress:
        task = progress.add_task(title, total=total)
        yield lambda steps: progress.advance(task, steps)


def _look(item: LabelledImage | Path, num_classes: int, ignore_index: int) -> Look:
    try:
        if isinstance(item, Path):
            read_image(item)
            return Look(None, {})
        return _look_at_pair(item, num_classes, ignore_index)
    except AttnlabError as error:
        return Look(str(error).removesuffix(FILE_HINT).rstrip(), {})


def _look_at_pair(item: LabelledImage, num_classes: int, ignore_index: int) -> Look:
    size = read_image(item.image, exif=False).shape[-2:]
    mask = read_mask(item.mask)
    if mask.shape != size:
        text = f"The mask '{item.mask}' is {_by(mask.shape)}, its image '{item.image}' is {_by(size)} pixels."
        if read_image(item.image).shape[-2:] == mask.shape:
            text += (
                " They agree once the image is turned as its EXIF orientation says, which is not done for "
                "images with masks: store it upright, without that entry."
            )
        return Look(text, {})
    values = values_of(mask)
    strange = [value for value in values if value >= num_classes and value != ignore_index]
    if strange:
        listed = ", ".join(map(str, strange[:8])) + (", …" if len(strange) > 8 else "")
        return Look(
            f"The mask '{item.mask}' holds the values {listed}; with {num_classes} classes it may hold "
            f"0..{num_classes - 1} and {ignore_index} (ignore).",
            values,
        )
    if set(values) == {ignore_index}:
        return Look(
            f"The mask '{item.mask}' holds {ignore_index} (ignore) alone: nothing to learn or score.",
            values,
        )
    return Look(None, values)


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
