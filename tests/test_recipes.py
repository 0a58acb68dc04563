"""A configuration is read, or said to be none."""

from __future__ import annotations

import pytest

from attnlab.errors import AttnlabError
from attnlab.recipes import read_yaml


def test_an_empty_file_has_no_keys(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert read_yaml(str(tmp_path / "a.yaml")) == {}


def test_keys_and_letters_of_any_language(tmp_path):
    (tmp_path / "a.yaml").write_text("data:\n  class_names: [Blüte, 猫]\n", encoding="utf-8")
    assert read_yaml(str(tmp_path / "a.yaml")) == {"data": {"class_names": ["Blüte", "猫"]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"Cannot read the recipe '.*a\.yaml': No such file"),
        (b"a: [1", r"a\.yaml' is not valid YAML: .*line 1"),
        (b"a: \xff", r"a\.yaml' is not valid YAML"),
        (b"- a\n- b\n", r"a\.yaml' has no top-level keys such as model and data"),
        (b"a: !!python/object/apply:os.getcwd []", r"a\.yaml' is not valid YAML"),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(AttnlabError, match=rf"(?s){message}"):
        read_yaml(str(tmp_path / "a.yaml"))
