"""What all views share: files that are whole or not there, and names of files."""

import pytest

from attnlab.errors import AttnlabError
from attnlab.views import base
from attnlab.views.base import beside, file_stem


@pytest.mark.parametrize("old", ["old", None])
def test_a_full_disk_leaves_no_half_file(tmp_path, old):
    path = tmp_path / "a.json"
    if old:
        path.write_text(old)

    def pieces():
        yield "new"
        raise OSError("disk full")

    with pytest.raises(AttnlabError, match=r"Cannot write '.*a\.json': disk full"):
        beside(path, pieces())
    assert [p.read_text() for p in tmp_path.iterdir()] == ([old] if old else [])


def test_a_file_that_is_whole_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    beside(path, ["one\r\n"])
    beside(path, ["caf\udce9 ", "ünï\n"])
    assert path.read_bytes() == b"caf\xe9 \xc3\xbcn\xc3\xaf\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.jpg", "a"),
        ("x/y.JPEG", "x_y"),
        ("2008_000080", "2008_000080"),
        ("v1.2", "v1.2"),
        ("..\\a.png", ".._a"),
    ],
)
def test_names_become_files(name, stem):
    assert file_stem(name) == stem


def test_options_out_of_range_are_named():
    assert base.at_least(0, 0, "pictures.count") == 0
    with pytest.raises(AttnlabError, match=r"pictures\.count is -1; it must be at least 0"):
        base.at_least(-1, 0, "pictures.count")
    assert (base.share(0, "x"), base.share(1, "x")) == (0, 1)
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(AttnlabError, match=r"x is .*; it must be in 0\.\.1"):
            base.share(value, "x")
