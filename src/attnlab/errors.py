"""The error for invalid input, with suggestions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


class AttnlabError(Exception):
    """Invalid input: the message says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


def known_name(name: str, choices: Iterable[str]) -> str:
    """The choice that a name means, in any spelling: ``ELA-B`` means ``ela_b``.

    Args:
        name: The name as the user wrote it.
        choices: All valid names.

    Returns:
        The only choice equal to the name apart from case, hyphens, underscores, spaces and a plus sign; the
        name itself if it is a choice, or if none or several match.
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
        kind: The kind of thing named, e.g. ``"attention"``.
        name: The name as the user wrote it.
        choices: All valid names.
        hint: A last sentence with advice.

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
