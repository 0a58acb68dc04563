from __future__ import annotations

from types import SimpleNamespace

import pytest

from attnlab.data import DetectionDataModule
from attnlab.data.detection.items import DetectionItems
from attnlab.errors import AttnlabError
from tests.data.detection.conftest import IMAGES


class Made(DetectionDataModule):
    """Serves `IMAGES` without files."""

    def __init__(self, names: list[str], **options) -> None:
        super().__init__("made", check="none", **options)
        self.names = names

    def categories(self) -> dict[int, str]:
        return dict(enumerate(self.names, 1))

    def items(self, split: str) -> DetectionItems:
        return DetectionItems.of(IMAGES)


@pytest.mark.filterwarnings("ignore:.*are also in the training split")
def test_a_label_beyond_the_classes_is_named():
    Made(["x", "y", "z"]).setup()
    with pytest.raises(AttnlabError, match=r"2 objects .*'val' .*label outside 0 to 1, e\.g\. 2 in 'c'"):
        Made(["x", "y"]).setup("validate")


@pytest.mark.filterwarnings("ignore:.*are also in the training split")
@pytest.mark.parametrize(
    ("share", "epochs", "strong"),
    [(0.2, 72, 15), (0.5, 3, 2), (0.1, 30, 3), (0.7, 10, 7), (1.0, 10, None), (0.0, 10, 0), (0.9, 300, 270)],
)
def test_strong_epochs_are_those_that_begin_within_the_share(share, epochs, strong):
    data = Made(["x", "y", "z"], mosaic=1.0, mosaic_size=32, strong_share=share)
    data.trainer = SimpleNamespace(max_epochs=epochs)
    data.setup("fit")
    found = data.dataset("train").strong_epochs
    assert found == strong
    if strong is not None:
        assert strong == sum(k * 1000 < round(share * 1000) * epochs for k in range(epochs))


def test_colours_of_many_classes():
    data = Made([str(k) for k in range(300)])
    assert len(data.palette) == 300
    assert len({tuple(colour) for colour in data.palette}) == 300
