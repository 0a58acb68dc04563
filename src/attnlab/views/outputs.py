"""Names for prediction files that overwrite neither inputs, nor each other, nor files of the user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from attnlab.errors import AttnlabError
from attnlab.views.base import beside, gathered

OWN = ".attnlab_outputs.json"
"""In a prediction folder, the list of attnlab's files, which may be replaced."""


def plan_outputs(
    trainer: Trainer,
    folder: Path,
    inputs: Sequence[str | Path],
    suffixes: Sequence[str] = (),
    files: Sequence[str] = (),
) -> dict[str, str]:
    """Choose the names of prediction files in advance. Must be called on every process.

    Args:
        trainer: The Trainer, for the process's rank.
        folder: The output folder; created.
        inputs: The input images.
        suffixes: Suffixes of the files per image: ``.png``, ``_overlay.png``.
        files: Files written once.

    Returns:
        The name without suffix of each image's files, by path: its stem, numbered if files of two images
        would have the same name (ignoring case, as some file systems do).

    Raises:
        AttnlabError: A file would overwrite an input image, or a file that attnlab did not write.
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
    # One process decides: another would mistake what it has written for the user's files.
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
    advice = "Choose another folder: --predictions.output_dir FOLDER."
    foreign = []
    # A file system may ignore case.
    read = {str(Path(path).resolve()).lower() for path in inputs}
    for path in (folder / name for name in planned):
        if str(path.resolve()).lower() in read:
            return f"'{path}' would overwrite an input image. {advice}"
        if (path.exists() or path.is_symlink()) and path.name not in own:
            foreign.append(path.name)
    if not foreign:
        return None
    more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
    return (
        f"'{folder}' contains {', '.join(foreign[:3])}{more}, which attnlab did not write and would "
        f"overwrite. {advice}"
    )


def _own(folder: Path) -> set[str]:
    try:
        content = json.loads((folder / OWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name in content if isinstance(name, str)} if isinstance(content, list) else set()
