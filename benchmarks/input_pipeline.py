"""How fast training samples come, beside how fast their JPEGs alone can be decoded.

Run: ``python benchmarks/input_pipeline.py [folder with VOCdevkit] [--crop 513] [--batch 8] [--rounds 5]``

Both are measured in turn, several times, in one run, so that other load on the machine meets both alike; the
medians are reported. One loader worker works for the pipeline, one thread decodes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from attnlab.data import VOCSegmentationDataModule
from attnlab.data.images import read_image
from attnlab.data.sampling import TrainSampler
from attnlab.data.segmentation.sets import ImageAndMask

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def made_images(folder: Path, count: int = 64) -> Path:
    """Write images of VOC's usual size, 500 x 375, with a photograph's detail, and masks of a few regions."""
    rng = np.random.default_rng(0)
    voc = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / name).mkdir(parents=True)
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (500, 375), Image.BICUBIC
        )
        noisy = np.asarray(coarse) + rng.normal(0, 8, (375, 500, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(voc / f"JPEGImages/{k}.jpg", quality=90)
        regions = Image.fromarray(rng.integers(0, 21, (6, 8), np.uint8)).resize((500, 375), Image.NEAREST)
        regions.save(voc / f"SegmentationClass/{k}.png")
    for split in ("train", "val"):
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(map(str, range(count))))
    return folder


def decode(items: list[ImageAndMask]) -> None:
    for item in items:
        read_image(item.image)


def rate(work: Callable[[], object], images: int) -> float:
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=REAL_DATA)
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as temporary:
        real = (options.folder / "VOCdevkit").is_dir()
        root = options.folder if real else made_images(Path(temporary))
        data = VOCSegmentationDataModule(
            str(root), batch_size=options.batch, num_workers=1, crop_size=options.crop, check=False
        )
        data.setup("fit")
        items = data.items("train")
        loader = data.train_dataloader()
        images = len(loader) * options.batch
        sampler = loader.sampler
        assert isinstance(sampler, TrainSampler)
        list(loader)  # Starts the worker and fills the file cache.

        decoding, loading = [], []
        for round_number in range(options.rounds):
            sampler.set_epoch(round_number)
            decoding.append(rate(lambda: decode(items), len(items)))
            loading.append(rate(lambda: sum(1 for _ in loader), images))

    source = "real VOC images" if real else "made images"
    print(f"{len(items)} {source}, crop {options.crop}, batch {options.batch}, {options.rounds} rounds")
    print(f"decoding alone     {median(decoding):7.0f} images/s")
    print(f"training loader    {median(loading):7.0f} images/s")
    print(f"ratio of medians   {median(loading) / median(decoding):7.2f}")
    by_round = sorted(load / alone for load, alone in zip(loading, decoding, strict=True))
    print(f"ratio, by round    {by_round[0]:7.2f} to {by_round[-1]:.2f}")


if __name__ == "__main__":
    main()
