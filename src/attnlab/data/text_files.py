"""Reading users' text files, such as lists of images."""

from __future__ import annotations

import codecs
from pathlib import Path

from attnlab.errors import AttnlabError

# UTF-32's (little-endian) byte order mark starts with UTF-16's, so it is checked first.
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
    """The stripped, non-empty lines of a text file; see `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def decode_text(data: bytes, path: str | Path) -> str:
    """Decode a file's bytes: UTF-8, or as its byte order mark says.

    Raises:
        AttnlabError: It is neither, e.g. Latin-1, or UTF-16 without a byte order mark.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = "UTF-8" if encoding == "utf-8" else f"{encoding.upper()}, its byte order mark"
        raise AttnlabError(
            f"'{path}' is not text in {what}: line {line} has the byte 0x{data[error.start]:02x}, as in "
            f"Latin-1 or a Windows code page. {_REMEDY}"
        ) from error
    if "\0" in text:
        raise AttnlabError(
            f"'{path}' has zero bytes: it is UTF-16 without a byte order mark, or not text. {_REMEDY}"
        )
    return text


_REMEDY = (
    "Save it as UTF-8: with an editor's 'Save as', PowerShell's Out-File -Encoding utf8, or iconv -f LATIN1 "
    "-t UTF-8."
)
