from __future__ import annotations

import pytest

from attnlab.data.folders import find_images
from attnlab.errors import AttnlabError


def test_find_images(tmp_path):
    for name in ("b/2.PNG", "b/c/1.jpg", "b/notes.txt", "a.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*sources):
        return [path.name for path in find_images([str(tmp_path / source) for source in sources])]

    assert names("b", "a.jpeg", "b/2.PNG") == ["2.PNG", "1.jpg", "a.jpeg"]
    assert names("**/*.j*") == ["a.jpeg", "1.jpg"]
    assert [path.name for path in find_images(str(tmp_path / "a.jpeg"))] == ["a.jpeg"]
    (tmp_path / "empty").mkdir()
    for source in ("empty", "nowhere", "*.gif"):
        with pytest.raises(AttnlabError, match=r"No "):
            names(source)
