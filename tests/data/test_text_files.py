"""Text in the encodings that editors write, and nothing guessed."""

from __future__ import annotations

import codecs

import pytest

from attnlab.data.text_files import decode_text, read_lines, read_text
from attnlab.errors import AttnlabError

TEXT = "blüte\n猫 1\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_utf_8_or_what_the_mark_says(data):
    assert decode_text(data, "a.txt") == TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\xfcte\n", r"'a\.txt' is not text in UTF-8: line 2 has the byte 0xfc"),
        (TEXT.encode("utf-16-le"), r"a\.txt'.*Save it as UTF-8"),
        ("ab".encode("utf-16-le"), "zero bytes"),
        (codecs.BOM_UTF16_LE + b"abc", r"a\.txt' is not text in UTF-16"),
    ],
)
def test_what_is_neither_is_refused(data, message):
    with pytest.raises(AttnlabError, match=message):
        decode_text(data, "a.txt")


def test_lines_without_the_space_around_them(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"  a b \r\n\r\n\tc\n")
    assert read_lines(tmp_path / "a.txt") == ["a b", "c"]
    with pytest.raises(AttnlabError, match=r"Cannot open '.*gone\.txt': No such file"):
        read_text(tmp_path / "gone.txt")
