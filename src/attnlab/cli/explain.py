"""A parser error in one line: which option, where it was set, what it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from attnlab.cli.arguments import Arguments


def explained(message: str, known: Iterable[str], typed: Arguments) -> str:
    """A parser error in one line, with the options that may have been meant.

    Args:
        message: The parser's message, of several lines.
        known: All existing options, e.g. ``--model.encoder``.
        typed: The arguments, to find where the option was set.
    """
    text = re.sub(r"\s+", " ", message).replace("typing.", "").strip().rstrip(".")
    block, owner = "", ""
    inner = re.search(
        r"Parser key \"(model|data)\":.*Problem with given class_path '[\w.]+\.(\w+)': "
        r"(.*?)(?: - Expected a <class 'NoneType'>.*)?$",
        text,
    )
    if inner:
        block, owner, text = f"{inner[1]}.", inner[2], inner[3].rstrip(".")
    flag = _option(text, block, typed)
    if flag is None:
        flags = [f"--{name}" for name in re.findall(r"--([\w.]+)", text)]
        return f"{text[0].upper()}{text[1:]}. {_near(flags, known)}".strip()
    where = typed.place_of(flag)
    if flag in set(known):
        value = re.search(r"(?:Got value|Given value): (.*)$", text)
        got = value[1] if value else next(iter(typed.values(flag)), "")
        return f"{flag}{where} takes {_types(text)}{f', got {got}' if got else ''}."
    return f"{owner or 'The command'} has no option {flag}{where}. {_near([flag], known)}".strip()


def _option(text: str, block: str, typed: Arguments) -> str | None:
    """The option a message is about; None if it does not name one by its key."""
    named = re.search(r"[Oo]ption '([\w.]+)'", text) or re.search(r'Parser key "([\w.]+)"', text)
    if named is None:
        return None
    group = re.search(r"Group '([\w.]+)'", text)
    name = f"{group[1]}.{named[1]}" if group else named[1]
    if block:
        return f"--{block}{name}"
    written = [flag for flag in typed.names() if flag == f"--{name}" or flag.endswith(f".{name}")]
    return written[0] if written else f"--{name}"


def _types(text: str) -> str:
    """What an option takes, from a message such as ``Expected a Literal['a', 'b']``."""
    found = re.search(r"Subtypes: \[(.*?)\] Errors", text) or re.search(
        r"Expected an? (.*?)(?:\. Got|$)", text
    )
    words = found[1] if found else "another value"
    words = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", words).replace("NoneType", "null")
    return re.sub(r"Literal\[([^\]]*)\]", r"\1", words).replace("'", "")


def _near(flags: Iterable[str], known: Iterable[str]) -> str:
    choices = sorted(set(known))
    near = [match for flag in flags if flag not in choices for match in get_close_matches(flag, choices, n=2)]
    return f"Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
