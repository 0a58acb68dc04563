"""Reading the text files that a user hands in: lists of images and the like."""

from __future__ import annotations

import codecs
from pathlib import Path

from attnlab.errors import AttnlabError

# The mark of UTF-32 (little-endian) begins with that of UTF-16, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Read a text file; see `decode_text`.

    Raises:
        AttnlabError: The file cannot be opened, or is in no known encoding.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AttnlabError(f"Cannot open '{path}': {error.strerror or error}.") from error
    return decode_text(data, path)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file without the space around them, and without empty ones; see `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def decode_text(data: bytes, path: str | Path) -> str:
    """Turn the bytes of a file into text: UTF-8, or what a byte order mark at their start says.

    Raises:
        AttnlabError: It is neither, e.g. Latin-1, whose bytes alone do not tell which letters are meant, or
            UTF-16 without a mark.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = "UTF-8" if encoding == "utf-8" else f"{encoding.upper()}, as its first bytes say"
        raise AttnlabError(
            f"'{path}' is no text in {what}: line {line} holds the byte 0x{data[error.start]:02x}, as "
            f"Latin-1 and the code pages of Windows do. {_REMEDY}"
        ) from error
    if "\0" in text:
        raise AttnlabError(
            f"'{path}' holds zero bytes: it is UTF-16 without a byte order mark, or no text. {_REMEDY}"
        )
    return text


_REMEDY = (
    "Save it as UTF-8: an editor's 'Save as' offers that, PowerShell's Out-File has -Encoding utf8, others "
    "have iconv -f LATIN1 -t UTF-8."
)
