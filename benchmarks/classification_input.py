"""How fast classification samples come, beside torchvision's usual pipeline and beside decoding alone.

Run: ``python benchmarks/classification_input.py [FOLDER] [--upscale 500] [--batch 64] [--rounds 7]``

``FOLDER`` holds class folders of JPEGs. Three things are measured in turn, several times, in one run, so that
other load on the machine meets all alike:

- our training loader with one worker;
- the reference: torchvision's ``ImageFolder``, Pillow, ``RandomResizedCrop``, flip, ``ToTensor`` and
  ``Normalize``, in a DataLoader with one worker;
- our decoder alone, in one thread.

``--upscale 500`` first writes copies of as many pixels as ImageNet's training images have on average, 500 x
375, each of its own shape.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from paired import interleaved, ratio_line
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from attnlab.data import ImageFolderDataModule
from attnlab.data.base import IMAGENET_MEAN, IMAGENET_STD
from attnlab.data.images import read_image
from attnlab.data.sampling import TrainSampler

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "imagenet-sample" / "val"


def spread(folder: Path, count: int) -> list[Path]:
    """Files spread evenly over all classes."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))
    return paths[:: max(1, len(paths) // count)][:count]


def upscaled(paths: list[Path], target: Path, longer: int) -> None:
    """Copy images into one class folder, enlarged to the area of ``longer`` by 3/4 of it."""
    for path in paths:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        factor = (longer * longer * 0.75 / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * factor), round(picture.height * factor))
        picture.resize(size, Image.Resampling.BICUBIC).save(target / path.name, quality=92)


def linked(paths: list[Path], target: Path) -> None:
    """Put images into one class folder as links."""
    for path in paths:
        (target / path.name).symlink_to(path.resolve())


def our_loader(root: Path, crop: int, batch: int) -> Callable[[], None]:
    data = ImageFolderDataModule(
        str(root), batch_size=batch, num_workers=1, crop_size=crop, val_folder="train", check="none"
    )
    data.setup("fit")
    loader = data.train_dataloader()
    sampler = loader.sampler
    assert isinstance(sampler, TrainSampler)

    def epoch() -> None:
        sampler.set_epoch(sampler.epoch + 1)
        for loaded in loader:
            assert loaded["image"].dtype == torch.uint8

    return epoch


def reference_loader(root: Path, crop: int, batch: int, count: int) -> Callable[[], None]:
    steps = [
        transforms.RandomResizedCrop(crop),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    data = Subset(ImageFolder(str(root / "train"), transforms.Compose(steps)), range(count))
    loader = DataLoader(data, batch, shuffle=True, num_workers=1, drop_last=True, persistent_workers=True)

    def epoch() -> None:
        for images, _ in loader:
            assert images.dtype == torch.float32

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=REAL_DATA)
    parser.add_argument("--upscale", type=int, help="longer side of enlarged copies, in pixels")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        target = root / "train" / "all"
        target.mkdir(parents=True)
        chosen = spread(options.folder, options.images)
        chosen = chosen[: len(chosen) // options.batch * options.batch]  # Whole batches, so all do the same.
        if not chosen:
            raise SystemExit(f"Fewer JPEGs in '{options.folder}' than a batch of {options.batch}.")
        if options.upscale:
            upscaled(chosen, target, options.upscale)
        else:
            linked(chosen, target)
        paths = sorted(target.iterdir())
        sizes = [read_image(path).shape[-2:] for path in paths]
        works = {
            "training loader": our_loader(root, options.crop, options.batch),
            "reference": reference_loader(root, options.crop, options.batch, len(paths)),
            "decoding alone": lambda: [read_image(path) for path in paths] and None,
        }
        times = interleaved(works, options.rounds)

    height, width = (sum(size[axis] for size in sizes) / len(sizes) for axis in (0, 1))
    print(
        f"{len(paths)} images, on average {width:.0f} x {height:.0f}; crop {options.crop}, "
        f"batch {options.batch}, {options.rounds} rounds"
    )
    for name, taken in times.items():
        print(f"{name:<34} {len(paths) / median(taken):6.0f} images/s")
    print(ratio_line("over the reference", times["reference"], times["training loader"]))
    print(ratio_line("of decoding alone", times["decoding alone"], times["training loader"]))


if __name__ == "__main__":
    main()
