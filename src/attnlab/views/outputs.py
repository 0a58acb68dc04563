"""What predictions are called: never as an input, never alike, never as what attnlab has not written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from attnlab.errors import AttnlabError
from attnlab.views.base import beside, gathered

OWN = ".attnlab_outputs.json"
"""In a folder of predictions, the list of the files there that are attnlab's and may be replaced."""


def plan_outputs(
    trainer: Trainer,
    folder: Path,
    inputs: Sequence[str | Path],
    suffixes: Sequence[str] = (),
    files: Sequence[str] = (),
) -> dict[str, str]:
    """Name the files that a prediction will write, before it begins. Every process must call this.

    Args:
        trainer: Says which process this is.
        folder: Where they go; it is made.
        inputs: The pictures that are read.
        suffixes: What is written for each picture: ``.png``, ``_overlay.png``.
        files: What is written once.

    Returns:
        The name without suffix of each picture's files, by its path: its own stem, numbered where files of
        two pictures would be called alike (in small or capital letters, which some disks do not tell apart).

    Raises:
        AttnlabError: A file would take the place of a picture that is read, or of one that attnlab has not
            written.
    """
    names = dict(_names(inputs, suffixes, files))
    planned = [*files, *(name + suffix for name in names.values() for suffix in suffixes)]
    problem = None
    folder.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        own = _own(folder)
        problem = _problem(folder, planned, inputs, own)
        if problem is None and planned:
            kept = sorted({name for name in own if (folder / name).exists()} | set(planned))
            beside(folder / OWN, [json.dumps(kept, indent=0), "\n"])
    # One decides: to another, what the first has begun to write would be somebody else's.
    problem = gathered(problem)[0]
    if problem is not None:
        raise AttnlabError(problem)
    return names


def _names(
    inputs: Iterable[str | Path], suffixes: Sequence[str], files: Iterable[str]
) -> Iterator[tuple[str, str]]:
    taken = {name.lower() for name in files}
    for path in inputs:
        stem = name = Path(path).stem
        number = 1
        while any((name + suffix).lower() in taken for suffix in suffixes):
            number += 1
            name = f"{stem}_{number}"
        taken.update((name + suffix).lower() for suffix in suffixes)
        yield str(path), name


def _problem(folder: Path, planned: Iterable[str], inputs: Iterable[str | Path], own: set[str]) -> str | None:
    advice = "Name another folder: --predictions.output_dir FOLDER."
    foreign = []
    # A folder may not tell small letters from capitals.
    read = {str(Path(path).resolve()).lower() for path in inputs}
    for path in (folder / name for name in planned):
        if str(path.resolve()).lower() in read:
            return f"'{path}' would take the place of a picture that is to be read. {advice}"
        if (path.exists() or path.is_symlink()) and path.name not in own:
            foreign.append(path.name)
    if not foreign:
        return None
    more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
    return (
        f"'{folder}' holds {', '.join(foreign[:3])}{more}, which attnlab has not written and would replace. "
        f"{advice}"
    )


def _own(folder: Path) -> set[str]:
    try:
        content = json.loads((folder / OWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name in content if isinstance(name, str)} if isinstance(content, list) else set()
