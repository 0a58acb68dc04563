"""The one error type that a user is meant to read, and the near matches it offers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


class AttnlabError(Exception):
    """Input that cannot work: the message says what is wrong, where, and what to do about it.

    The command line prints the message without a traceback and exits with status 2.
    """


def known_name(name: str, choices: Iterable[str]) -> str:
    """The choice that a name means, however it is written: ``ELA-B`` is ``ela_b``, ``DeepLabV3+`` the Plus.

    Args:
        name: The name as the user wrote it.
        choices: All valid names.

    Returns:
        The one choice that is the name but for capital letters, hyphens, underscores, spaces and a plus sign;
        the name itself where it is a choice, or where none or several are.
    """
    known = list(choices)
    if name in known:
        return name
    alike = [choice for choice in known if _letters(choice) == _letters(name)]
    return alike[0] if len(alike) == 1 else name


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower().replace("+", "plus"))


def unknown(kind: str, name: str, choices: Iterable[str], hint: str = "") -> AttnlabError:
    """An error for a name that is not among the choices, nearest ones first.

    Args:
        kind: What the name stands for, e.g. ``"attention"``.
        name: The name as the user wrote it.
        choices: All valid names.
        hint: A last sentence that says where to look further.

    Returns:
        The error, to be raised by the caller.
    """
    known = sorted(choices)
    by_lower = {choice.lower(): choice for choice in known}
    near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    shown = ", ".join(known if len(known) <= 40 else [*known[:40], f"… ({len(known)} in all)"])
    parts = [f"Unknown {kind} '{name}'."]
    if near:
        parts.append(f"Did you mean {' or '.join(repr(match) for match in near)}?")
    parts.append(f"Known: {shown}." if known else "There are none.")
    if hint:
        parts.append(hint)
    return AttnlabError(" ".join(parts))
