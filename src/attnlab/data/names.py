"""Names of classes and splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from attnlab.errors import AttnlabError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""Common names of the splits, the usual one first."""


def alike(names: Iterable[str], case: bool = False) -> list[list[str]]:
    """Names that are easily confused, in groups of at least two.

    They differ only in white space and, unless ``case`` counts, in case; single letters such as ``A`` and
    ``a`` are always distinct.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = " ".join(str(name).split())
        groups[plain if case or len(plain) == 1 else plain.casefold()].append(str(name))
    return [group for group in groups.values() if len(group) > 1]


def check_names(names: Sequence[str], option: str, case: bool = False) -> None:
    """Reject class names that are empty or easily confused; see `alike`.

    Raises:
        AttnlabError: There are none, one is empty, or two are alike.
    """
    if not names:
        raise AttnlabError(f"{option} must name at least one class, each once.")
    empty = [position for position, name in enumerate(names) if not str(name).strip()]
    if empty:
        raise AttnlabError(f"{option} must name every class: class {empty[0]} of {len(names)} has no name.")
    twice = alike(names, case)
    if twice:
        raise AttnlabError(
            f"{option} must name each class once, but has {shown_alike(twice)}. Scores are listed by class "
            "name: give each class its own."
        )


def shown_alike(groups: Sequence[Sequence[str]]) -> str:
    """The first few groups of names, in quotes."""
    texts = [" and ".join(repr(name) for name in group) for group in groups[:5]]
    return ", ".join(texts) + (", …" if len(groups) > 5 else "")


def absent_classes(absent: Sequence[str], total: int, where: str) -> str:
    """The warning about classes, out of ``total``, that occur in no training mask, or other ``where``."""
    are = "classes are" if len(absent) > 1 else "class is"
    return (
        f"{len(absent)} of {total} {are} in no {where}, and cannot be learnt: {listed(absent)}. Remove "
        "classes that the data does not have."
    )


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and the total number."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def split_called(name: str, there: Iterable[str]) -> list[str]:
    """The existing folder or list names that a split's name may stand for.

    Only the name itself if it exists; else those that differ in case; else alternative names of the split
    (`SPLIT_NAMES`), in that order.
    """
    there = sorted(there)
    if name in there:
        return [name]
    by_lower: dict[str, list[str]] = defaultdict(list)
    for other in there:
        by_lower[other.lower()].append(other)
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    match = re.fullmatch(r"([a-z]+)(.*)", name.lower())
    calls = next((calls for calls in SPLIT_NAMES.values() if match and match[1] in calls), ())
    return [other for call in calls for other in by_lower.get(call + (match[2] if match else ""), [])]


def differences(expected: Collection[str], there: Collection[str]) -> str:
    """A sentence for each kind of difference between two sets of classes, with the first names."""
    missing = [name for name in expected if name not in there]
    surplus = [name for name in there if name not in expected]
    parts = (("Missing", missing), ("Not expected", surplus))
    return " ".join(f"{what}: {listed(names)}." for what, names in parts if names)
