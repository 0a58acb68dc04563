"""How fast training samples of detection come: as stored, letterboxed, as mosaics, and blended.

Run: ``python benchmarks/detection_input.py [--images 256] [--size 416] [--batch 16] [--rounds 7]``

The images are made: JPEGs of 500 x 375 and 375 x 500 pixels with a photograph's detail and three boxes each.
The training loader, with one worker, is run in turn

- as stored: images are decoded, and flipped half of the time;
- letterbox: and brought to ``--size``, each image by itself;
- mosaic: and each sample is a mosaic of four images;
- mosaic and mixup: and each mosaic is blended with a fifth;
- mosaic, mixup, HSV: and `RandomHSV` changes the colours;

beside decoding alone, several times in one run, so that other load on the machine meets all alike.

Then decodes are counted for data sets of several lengths: how many images the samples of a batch ask for, and
how many are decoded, since each is once a batch.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import torch
from paired import interleaved, ratio_line
from PIL import Image
from torch import nn

from attnlab.data import DetectionDataModule
from attnlab.data.detection.items import DetectionItems, ImageAndBoxes
from attnlab.data.detection.mosaic import MosaicMixup
from attnlab.data.detection.sets import DetectionSample, TrainSet
from attnlab.data.detection.transforms import RandomHSV
from attnlab.data.images import read_image
from attnlab.data.sampling import SampleKey, TrainSampler

LENGTHS = (8, 100, 1000, 16551)
"""Of data sets for which decodes are counted; the last is VOC 2007+2012."""


def made_images(folder: Path, count: int) -> DetectionItems:
    """Write smooth noise with a little grain, and three boxes an image."""
    rng = np.random.default_rng(0)
    images = []
    for k in range(count):
        width, height = (500, 375) if k % 4 else (375, 500)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        noisy = smooth + rng.normal(0, 8, (height, width, 3))
        path = folder / f"{k:05d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        corners = rng.uniform(0, 200, (3, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(20, 170, (3, 2))], 1)
        images.append(ImageAndBoxes(path.stem, path, k, (height, width), boxes, [0, 1, 2]))
    return DetectionItems.of(images)


class MadeData(DetectionDataModule):
    """Images that lie in memory as a list."""

    def __init__(self, items: DetectionItems, batch: int, augment: list[nn.Module] | None) -> None:
        super().__init__("made", batch_size=batch, num_workers=1, check="none", augment=augment)
        self.made = items

    def categories(self) -> dict[int, str]:
        """Three classes."""
        return {1: "one", 2: "two", 3: "three"}

    def items(self, split: str) -> DetectionItems:
        """The same images for every split."""
        return self.made


def loader(
    items: DetectionItems, batch: int, mixing: MosaicMixup | None, augment: list[nn.Module] | None = None
) -> Callable[[], None]:
    """A function that loads an epoch."""
    data = MadeData(items, batch, augment)
    data.mixing = mixing
    data.setup("fit")
    batches = data.train_dataloader()
    sampler = batches.sampler
    assert isinstance(sampler, TrainSampler)

    def epoch() -> None:
        sampler.set_epoch(sampler.epoch + 1)
        for loaded in batches:
            assert loaded["image"][0].dtype == torch.uint8

    return epoch


class Counting(TrainSet):
    """Counts the images that are decoded, and decodes nothing."""

    decodes = 0

    def load(self, index: int) -> DetectionSample:
        """A small black image with one object."""
        self.decodes += 1
        boxes = np.array([[2.0, 2.0, 30.0, 30.0]], np.float32)
        return DetectionSample(torch.zeros(3, 32, 48, dtype=torch.uint8), boxes, np.array([0]))


class CountingMosaic(MosaicMixup):
    """Counts the images that mosaics ask for."""

    asked = 0

    def __call__(
        self, sample_index: int, length: int, load: Callable[[int], DetectionSample], rng: Random
    ) -> DetectionSample:
        """Make a sample, and count what it loads."""

        def counted(index: int) -> DetectionSample:
            self.asked += 1
            return load(index)

        return super().__call__(sample_index, length, counted, rng)


def decodes(length: int, batch: int, batches: int) -> tuple[float, float]:
    """Images that a batch of mosaics with mixup asks for, and those that are decoded for it."""
    items = DetectionItems.of(
        ImageAndBoxes("", Path("unread.jpg"), k, (32, 48), [[2, 2, 30, 30]], [0]) for k in range(length)
    )
    mixing = CountingMosaic(32)
    images = Counting(items, [], 0, mixing)
    rng = np.random.default_rng(0)
    for epoch in range(batches):
        keys = rng.choice(length, min(batch, length), replace=False)
        images.__getitems__([SampleKey(int(key), epoch) for key in keys])
    return mixing.asked / batches, images.decodes / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=416, help="side of what the loader yields, in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count = options.images // options.batch * options.batch  # Whole batches, so all do the same.
    if not count:
        raise SystemExit(f"{options.images} images are fewer than a batch of {options.batch}.")

    with tempfile.TemporaryDirectory() as temporary:
        items = made_images(Path(temporary), count)
        letterbox = MosaicMixup(options.size, 0, 0, (1.0, 1.0), stretch=1.0)
        mosaic, both = MosaicMixup(options.size, 1, 0), MosaicMixup(options.size, 1, 1)
        works: dict[str, Callable[[], object]] = {
            "decoding alone": lambda: [read_image(path) for path in items.paths] and None,
            "as stored": loader(items, options.batch, None),
            "letterbox": loader(items, options.batch, letterbox),
            "mosaic": loader(items, options.batch, mosaic),
            "mosaic and mixup": loader(items, options.batch, both),
            "mosaic, mixup, HSV": loader(items, options.batch, both, [RandomHSV()]),
        }
        times = interleaved(works, options.rounds)

    print(f"{count} images; size {options.size}, batch {options.batch}, {options.rounds} rounds, one worker")
    for name, taken in times.items():
        print(f"{name:<34} {count / median(taken):6.0f} samples/s")
    for name in list(works)[3:]:
        print(ratio_line(f"{name}: time over letterbox", times[name], times["letterbox"]))
    print(f"images that a batch of {options.batch} mosaics with mixup asks for, and decodes of them")
    for length in LENGTHS:
        asked, decoded = decodes(length, options.batch, batches=40)
        print(f"{f'in a data set of {length}':<34} {asked:6.1f} {decoded:6.1f}")


if __name__ == "__main__":
    main()
