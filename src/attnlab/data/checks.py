"""Looking at every file of a data set before the first step, so that a bad one costs no night."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attnlab.data.images import FILE_HINT, read_image, read_mask
from attnlab.data.segmentation_sets import LabelledImage
from attnlab.errors import AttnlabError

_JOB = 64


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

    def look(position: int) -> str | None:
        return _problem(items[position], num_classes, ignore_index)

    found = look_at_all(len(items), look)
    return {items[position]: found[position] for position in sorted(found)}


def look_at_all(count: int, look: Callable[[int], str | None], title: str | None = None) -> dict[int, str]:
    """Look at things 0 … count - 1, in threads, and in a distributed run each process at its share.

    All processes learn what all have found.

    Args:
        count: The number of things.
        look: Says what is wrong with one, or None. Called from many threads.
        title: Stands before a progress bar, which the first process then shows.

    Returns:
        What is wrong, by position, in rising order, of those with which something is.
    """
    shared = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    share = range(rank, count, world)
    # Some hundred to a job: a million jobs would take gigabytes, and longer to hand out than to do.
    parts = [share[start : start + _JOB] for start in range(0, len(share), _JOB)]

    def look_at(part: range) -> dict[int, str]:
        texts = ((position, look(position)) for position in part)
        return {position: text for position, text in texts if text}

    found: dict[int, str] = {}
    shows = title is not None and rank == 0
    with ThreadPoolExecutor() as pool, _progress(title or "", len(share), shows) as advance:
        # Decoders release the interpreter's lock, so threads do.
        for part, texts in zip(parts, pool.map(look_at, parts), strict=True):
            found |= texts
            advance(len(part))
    if shared:
        of_all: list[dict[int, str]] = [{} for _ in range(world)]
        dist.all_gather_object(of_all, found)
        found = {position: text for texts in of_all for position, text in texts.items()}
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda steps: progress.advance(task, steps)


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
