"""Predictions never overwrite an input image that is read, of each other, or of somebody else's file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from attnlab.errors import AttnlabError
from attnlab.views.outputs import plan_outputs

FIRST = SimpleNamespace(is_global_zero=True)
MASKS = (".png", "_overlay.png")


def plan(folder: Path, *inputs: str | Path, suffixes=(".png",), files=()) -> dict[str, str]:
    return plan_outputs(FIRST, folder, inputs, suffixes, files)


def written(names: dict[str, str], suffixes: tuple[str, ...]) -> list[str]:
    return [name + suffix for name in names.values() for suffix in suffixes]


def test_a_name_is_the_stem_numbered_where_two_meet(tmp_path):
    names = plan(tmp_path, "a/x.jpg", "b/x.png", "b/x_2.png", "y.bmp")
    assert names == {"a/x.jpg": "x", "b/x.png": "x_2", "b/x_2.png": "x_2_2", "y.bmp": "y"}


@pytest.mark.parametrize(
    "inputs",
    [
        ["in/a.jpg", "in/a_overlay.jpg"],
        ["in/a_overlay.jpg", "in/a.jpg"],
        ["in/a.jpg", "in/A.jpg", "in/a_OVERLAY.png"],
        ["in/a.jpg", "in/a.png", "in/a_2.bmp", "in/a_overlay.bmp", "in/a_2_overlay.bmp"],
    ],
)
def test_no_two_files_are_called_alike(tmp_path, inputs):
    """Also not in other letters: some disks do not tell A from a."""
    files = [name.lower() for name in written(plan(tmp_path, *inputs, suffixes=MASKS), MASKS)]
    assert len(files) == 2 * len(inputs) == len(set(files))


@pytest.mark.parametrize("name", ["a.png", "a.PNG"])
def test_a_picture_that_is_read_stays(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(AttnlabError, match="overwrite an input image") as caught:
        plan(tmp_path, tmp_path / name)
    assert "--predictions.output_dir" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_also_through_a_link(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    with pytest.raises(AttnlabError, match="overwrite an input image"):
        plan(tmp_path / "link", tmp_path / "photos/a.png")


def test_a_table_does_not_take_the_place_of_a_picture(tmp_path):
    (tmp_path / "predictions.png").write_bytes(b"mine")
    with pytest.raises(AttnlabError, match="overwrite an input image"):
        plan(
            tmp_path, tmp_path / "predictions.png", suffixes=(), files=("predictions.csv", "predictions.png")
        )


def test_somebody_elses_file_stays_and_ones_own_may_be_replaced(tmp_path):
    names = plan(tmp_path, "in/a.jpg", files=("predictions.json",))
    for name in [*written(names, (".png",)), "predictions.json"]:
        (tmp_path / name).write_text("of the first run")
    plan(tmp_path, "in/a.jpg", "in/b.jpg", files=("predictions.json",))
    (tmp_path / "c.png").write_text("mine")
    with pytest.raises(AttnlabError, match=r"contains c\.png, which attnlab did not write"):
        plan(tmp_path, "in/a.jpg", "in/c.jpg")
    # Nothing was begun, so what is attnlab's is known as before.
    plan(tmp_path, "in/a.jpg", files=("predictions.json",))
    assert (tmp_path / "c.png").read_text() == "mine"


def test_a_link_that_leads_nowhere_is_somebody_elses(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(AttnlabError, match="did not write"):
        plan(tmp_path, "in/a.jpg")


def test_a_list_of_ones_own_files_that_is_broken_makes_them_somebody_elses(tmp_path):
    plan(tmp_path, "in/a.jpg")
    (tmp_path / "a.png").write_text("x")
    (tmp_path / ".attnlab_outputs.json").write_text("{")
    with pytest.raises(AttnlabError, match="did not write"):
        plan(tmp_path, "in/a.jpg")


@pytest.mark.parametrize("foreign", [True, False])
def test_the_first_process_decides_for_all(tmp_path, processes, foreign):
    """To the others, what the first has begun to write meanwhile would be somebody else's."""
    if foreign:
        (tmp_path / "a.png").write_text("mine")

    def process(rank):
        trainer = SimpleNamespace(is_global_zero=rank == 0)
        try:
            names = plan_outputs(trainer, tmp_path, ["in/a.jpg"], (".png",))
        except AttnlabError:
            return None
        (tmp_path / "a.png").write_text(f"of process {rank}")
        return names

    assert processes(3, process) == [None if foreign else {"in/a.jpg": "a"}] * 3
