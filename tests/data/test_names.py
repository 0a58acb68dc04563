from __future__ import annotations

import pytest

from attnlab.data import (
    VOCDetectionDataModule,
    VOCSegmentationDataModule,
)
from attnlab.errors import AttnlabError


@pytest.mark.parametrize(
    "names", [["a", "leaf", "leaf"], ["Leaf", "leaf "], ["tea pot", "Tea  pot"], ["a", " "]]
)
def test_names_that_are_alike_are_refused(names, tmp_path):
    for kind in (VOCSegmentationDataModule, VOCDetectionDataModule):
        with pytest.raises(AttnlabError, match=r"data\.class_names must name"):
            kind(str(tmp_path), class_names=names)
        kind(str(tmp_path), class_names=["A", "a"])
