"""Mosaic and mixup, seen from outside: where painted objects come to lie is where their boxes must be."""

from __future__ import annotations

from itertools import count
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.data.detection.items import DetectionItems, ImageAndBoxes
from attnlab.data.detection.mosaic import MosaicMixup
from attnlab.data.detection.sets import DetectionSample, TrainSet
from attnlab.data.sampling import SampleKey
from attnlab.errors import AttnlabError

SIZE = 96
SIZES = [(60, 80), (90, 40), (96, 96), (200, 150), (30, 33), (17, 300)]


class Painter:
    """Loads black images with two objects each; the one of ``white`` is painted.

    Whichever index is asked for, the n-th image loaded is the same, and its objects are labelled 2 n and
    2 n + 1: so that each is told from all others, were the same index drawn twice.
    """

    def __init__(self, white: int, seed: int) -> None:
        self.white, self.seed = white, seed
        self.loaded: list[DetectionSample] = []

    def __call__(self, index: int) -> DetectionSample:
        number = len(self.loaded)
        rng = Random(f"{self.seed} {number}")
        height, width = rng.choice(SIZES)
        image, boxes = torch.zeros(3, height, width, dtype=torch.uint8), []
        for half in range(2):  # One object in the left half, one in the right.
            x0 = half * width // 2 + rng.randrange(width // 4)
            y0 = rng.randrange(height // 2)
            x1 = rng.randrange(x0 + 3, (half + 1) * width // 2 + 1)
            y1 = rng.randrange(y0 + 3, height + 1)
            boxes.append([x0, y0, x1, y1])
            if self.white == 2 * number + half:
                image[:, y0:y1, x0:x1] = 255
        labels = np.array([2 * number, 2 * number + 1])
        self.loaded.append(DetectionSample(image, np.array(boxes, np.float32), labels))
        return self.loaded[-1]


def made(mixing: MosaicMixup, seed: int, white: int = -1) -> tuple[DetectionSample, Painter]:
    painter = Painter(white, seed)
    return mixing(0, 50, painter, Random(seed)), painter


def extent(bright: torch.Tensor) -> list[float] | None:
    """x0, y0, x1, y1 of the True pixels of (H, W)."""
    rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
    if not len(rows):
        return None
    return [float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1]


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(("mosaic", "mixup"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_boxes_are_where_objects_are_seen(mosaic, mixup, scale):
    mixing = MosaicMixup(SIZE, mosaic, mixup, (scale, scale), (scale, scale), stretch=1.0, fill=0)
    kept = left_out = 0
    for seed in range(25):
        result, painter = made(mixing, seed)
        assert len(set(result.labels.tolist())) == len(result.labels)
        for label in range(2 * len(painter.loaded)):
            # A mosaic that is blended with another image has half its brightness, and so has that image.
            bright = made(mixing, seed, white=label)[0].image[0] > (63 if mixup else 127)
            seen = extent(bright)
            source = painter.loaded[label // 2]
            factor = scale * SIZE / max(source.image.shape[-2:])
            x0, y0, x1, y1 = source.boxes[label % 2].tolist()
            share = int(bright.sum()) / ((x1 - x0) * (y1 - y0) * factor**2)
            least = 0.0 if seen is None else min(seen[2] - seen[0], seen[3] - seen[1])
            if label in result.labels.tolist():
                kept += 1
                box = result.boxes[result.labels.tolist().index(label)].tolist()
                assert seen is not None
                assert box == pytest.approx(seen, abs=1.01), (seed, label)
                assert share > 0.1
                assert least >= 1
            else:
                left_out += 1
                assert share < 0.35 or least < 4, (seed, label)
    assert kept > 20
    assert scale < 1.5 or left_out > 5


def test_boxes_follow_an_image_that_is_stretched():
    mixing = MosaicMixup(SIZE, 0.0, 0.0, (0.6, 1.4), stretch=1.6, fill=0)
    ratios = []
    for seed in range(40):
        result, painter = made(mixing, seed)
        (source,) = painter.loaded
        for position, label in enumerate(result.labels.tolist()):
            seen = extent(made(mixing, seed, white=label)[0].image[0] > 127)
            assert result.boxes[position].tolist() == pytest.approx(seen, abs=1.01)
            x0, y0, x1, y1 = result.boxes[position].tolist()
            if min(x0, y0) > 1 and max(x1, y1) < SIZE - 1 and min(x1 - x0, y1 - y0) > 12:
                before = source.boxes[label]
                ratios.append(
                    (x1 - x0) / (y1 - y0) / float((before[2] - before[0]) / (before[3] - before[1]))
                )
    assert 1 / 1.8 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.8


def test_four_images_touch_in_a_point():
    corners = set()
    for seed in range(20):
        loaded = count()

        def load(index, loaded=loaded):
            number = next(loaded)
            image = torch.full((3, 50, 50), number, dtype=torch.uint8)
            return DetectionSample(image, np.empty((0, 4), np.float32), np.empty(0, np.int64))

        # At this scale each covers all of the canvas on its side of the point.
        canvas = MosaicMixup(SIZE, 1.0, 0.0, (2.2, 2.2), shift=0.0, fill=255)(0, 9, load, Random(seed)).image[
            0
        ]
        assert 255 not in canvas
        across = int((canvas[0] == canvas[0, 0]).sum())
        down = int((canvas[:, 0] == canvas[0, 0]).sum())
        quarters = [
            canvas[:down, :across],
            canvas[:down, across:],
            canvas[down:, :across],
            canvas[down:, across:],
        ]
        values = [set(quarter.flatten().tolist()) for quarter in quarters if quarter.numel()]
        # Those that are not seen at all are not even loaded.
        assert values == [{number} for number in range(len(values))]
        assert next(loaded) == len(values)
        corners.add((across, down))
    assert len(corners) > 10


def test_pixels_are_those_of_a_plain_resize():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (120, 90), Image.Resampling.BICUBIC
    )
    source = torch.from_numpy(np.array(smooth)).permute(2, 0, 1)
    sample = DetectionSample(source, np.empty((0, 4), np.float32), np.empty(0, np.int64))
    mixing = MosaicMixup(80, 0.0, 0.0, (1.0, 1.0), stretch=1.0, fill=7)
    canvas = mixing(0, 1, lambda index: sample, Random(3)).image.permute(1, 2, 0).numpy()
    rows = np.flatnonzero((canvas != 7).any((1, 2)))
    assert len(rows) == 60
    expected = np.asarray(smooth.resize((80, 60), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(canvas[rows[0] : rows[-1] + 1] - expected).max() <= 1


def test_an_image_as_large_as_the_canvas_is_left_as_it_is():
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)
    sample = DetectionSample(image, np.array([[3.5, 4.0, 90.0, 80.25]], np.float32), np.array([4]))
    result = MosaicMixup(SIZE, 0.0, 1.0, (1.0, 1.0), stretch=1.0)(0, 1, lambda index: sample, Random(0))
    assert torch.equal(result.image, image)
    assert np.array_equal(result.boxes, sample.boxes)
    assert np.array_equal(result.labels, sample.labels)


def test_mixup_is_the_mean_of_both_with_all_boxes():
    """With the same random numbers, the mosaic is what it would be without mixup."""
    for seed in range(10):
        alone, _ = made(MosaicMixup(SIZE, 1.0, 0.0), seed)
        mixed, painter = made(MosaicMixup(SIZE, 1.0, 1.0), seed)
        ours = len(alone.labels)
        assert np.array_equal(mixed.boxes[:ours], alone.boxes)
        assert set(mixed.labels[ours:].tolist()) <= set(painter.loaded[-1].labels.tolist())
        # The partner is black, and grey where it is not: so nothing but these two is added.
        both = alone.image.int()
        blended = mixed.image.int()
        assert bool(((blended == both // 2) | (blended == (both + 114) // 2)).all())


def test_an_image_without_objects_is_not_blended_in():
    empty = DetectionSample(
        torch.full((3, 40, 40), 250, dtype=torch.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64)
    )
    result = MosaicMixup(SIZE, 1.0, 1.0)(0, 5, lambda index: empty, Random(0))
    assert set(result.image.flatten().tolist()) <= {114, 250}
    assert result.boxes.shape == (0, 4)
    assert result.boxes.dtype == np.float32
    assert result.labels.dtype == np.int64


def test_probabilities_and_partners():
    asked: list[int] = []
    painter = Painter(-1, 0)

    def load(index):
        asked.append(index)
        return painter(index)

    mosaics = blends = 0
    beside, blended = set(), set()
    for seed in range(300):
        asked.clear()
        MosaicMixup(16, 0.5, 0.5, (0.5, 0.5), shift=0.0)(3, 6, load, Random(seed))
        assert asked[0] == 3
        mosaics += len(asked) > 1
        blends += len(asked) == 5
        beside |= set(asked[1:4])
        blended |= set(asked[4:])
    # Within four standard deviations. At this scale all four images of a mosaic are seen.
    assert abs(mosaics - 150) < 35
    assert abs(blends - 75) < 30
    assert beside == blended == set(range(6))


@pytest.mark.parametrize("shape", [(20, 4000), (4000, 20), (1, 1), (1, 700)])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_odd_shapes_and_a_single_image(shape, mosaic):
    height, width = shape
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    whole = np.array([[0.0, 0.0, width, height], [0.0, 0.0, width / 2, height]], np.float32)
    sample = DetectionSample(image, whole, np.array([0, 1]))
    before = image.clone(), whole.copy()
    for seed in range(30):
        result = MosaicMixup(SIZE, mosaic, 1.0)(0, 1, lambda index: sample, Random(seed))
        assert result.image.shape == (3, SIZE, SIZE)
        assert result.image.dtype == torch.uint8
        assert len(result.boxes) == len(result.labels)
        assert bool((result.boxes[:, 2:] - result.boxes[:, :2] >= 2).all())
        assert bool((result.boxes >= 0).all())
        assert bool((result.boxes <= SIZE).all())
    assert torch.equal(image, before[0])
    assert np.array_equal(whole, before[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size is 4"),
        ({"mosaic": 1.2}, "mosaic is 1.2; it is a probability"),
        ({"mixup": -1.0}, "mixup is -1.0"),
        ({"scale": (0.0, 1.0)}, r"scale is \(0.0, 1.0\)"),
        ({"mixup_scale": (2.0, 1.0)}, r"mixup_scale is \(2.0, 1.0\)"),
        ({"shift": 0.7}, "shift is 0.7"),
        ({"stretch": 0.5}, "stretch is 0.5"),
        ({"fill": 256}, "fill is 256"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(AttnlabError, match=message):
        MosaicMixup(**{"size": 64, **options})


class TestInDataSet:
    """Behind the data set of training: which random numbers, how many decodes."""

    @pytest.fixture
    def make(self, tmp_path):
        images = []
        rng = np.random.default_rng(0)
        for k in range(6):
            path = tmp_path / f"{k}.jpg"
            Image.fromarray(rng.integers(0, 256, (40 + k, 50, 3), np.uint8)).save(path)
            images.append(ImageAndBoxes(str(k), path, k, (40 + k, 50), [[4, 5, 30, 35]], [k]))
        items = DetectionItems.of(images)
        return lambda seed=1: TrainSet(items, [], seed, MosaicMixup(64, 0.7, 0.7))

    @staticmethod
    def content(samples):
        return [
            (
                sample["index"],
                sample["image"].tolist(),
                *(sample["target"][key].tolist() for key in ("boxes", "labels")),
            )
            for sample in samples
        ]

    def test_a_sample_depends_on_seed_epoch_and_index_alone(self, make):
        keys = [SampleKey(k, epoch=3) for k in (4, 0, 4, 2)]
        together = self.content(make().__getitems__(keys))
        assert together == self.content([make()[key] for key in keys])
        assert together == self.content(reversed(make().__getitems__(keys[::-1])))
        for other in (make().__getitems__([SampleKey(4, epoch=2)]), make(seed=2).__getitems__(keys[:1])):
            assert together[:1] != self.content(other)

    def test_no_image_is_decoded_twice_within_a_batch(self, make, monkeypatch):
        decoded = []
        read = DetectionItems.read
        monkeypatch.setattr(
            DetectionItems,
            "read",
            lambda self, index, *more: decoded.append(index) or read(self, index, *more),
        )
        make().__getitems__([SampleKey(k) for k in range(6)])
        assert sorted(decoded) == sorted(set(decoded))
        assert len(decoded) <= 6
