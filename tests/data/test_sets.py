from __future__ import annotations

import pytest

from attnlab.data.sets import PackedStrings


def test_packed_strings():
    strings = ["a", "", "ünïcode/ß.JPEG", "\udcff.jpg", "z" * 300]
    packed = PackedStrings(strings)
    assert [packed[k] for k in range(len(packed))] == strings == list(packed)
    with pytest.raises(IndexError):
        packed[5]
    assert list(PackedStrings([])) == []
