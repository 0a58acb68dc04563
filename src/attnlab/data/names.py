"""Names of classes and of splits, as people write them."""

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
"""What people and tools call the splits, the usual name first."""


def alike(names: Iterable[str], case: bool = False) -> list[list[str]]:
    """The names that a reader cannot tell apart, in groups of at least two.

    They differ in nothing but space (around them, or its amount within) and, unless it counts, ``case``; that
    of single letters always does: ``A`` and ``a`` are two.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = " ".join(str(name).split())
        groups[plain if case or len(plain) == 1 else plain.casefold()].append(str(name))
    return [group for group in groups.values() if len(group) > 1]


def check_names(names: Sequence[str], option: str, case: bool = False) -> None:
    """Refuse names of the classes 0, 1, …, from an option, that do not tell them apart; see `alike`.

    Raises:
        AttnlabError: There are none, one is empty, or two are alike.
    """
    if not names:
        raise AttnlabError(f"{option} must name at least one class, and none twice.")
    empty = [position for position, name in enumerate(names) if not str(name).strip()]
    if empty:
        raise AttnlabError(f"{option} must name every class: number {empty[0]} of {len(names)} has no name.")
    twice = alike(names, case)
    if twice:
        raise AttnlabError(
            f"{option} must name each class once, none twice: {shown_alike(twice)}. Scores are told "
            "apart by these names: give each class its own."
        )


def shown_alike(groups: Sequence[Sequence[str]]) -> str:
    """Groups of names in quotes, the first few of them."""
    texts = [" and ".join(repr(name) for name in group) for group in groups[:5]]
    return ", ".join(texts) + (", …" if len(groups) > 5 else "")


def absent_classes(absent: Sequence[str], total: int, where: str) -> str:
    """The warning about classes, out of ``total``, that are in no training mask, or what ``where`` says."""
    are = "classes are" if len(absent) > 1 else "class is"
    return (
        f"{len(absent)} of {total} {are} in no {where}, and cannot be learnt: {listed(absent)}. Leave out "
        "of the names what the data does not have."
    )


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def split_called(name: str, there: Iterable[str]) -> list[str]:
    """What of the names that are there, of folders or lists, may be meant by the name of a split.

    It alone if it is there; else those that are the same but for case; else those that the split is called
    elsewhere (`SPLIT_NAMES`), in their order there.
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
    """A sentence for each kind of difference between two sets of classes, with the first names; or none."""
    missing = [name for name in expected if name not in there]
    surplus = [name for name in there if name not in expected]
    parts = (("Missing", missing), ("Not expected", surplus))
    return " ".join(f"{what}: {listed(names)}." for what, names in parts if names)
