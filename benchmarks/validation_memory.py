"""Whether the memory of full-size validation grows with the number of images.

Run: ``python benchmarks/validation_memory.py [--images 36] [--rounds 2]``

Each measurement is a process of its own that runs ``python main.py validate`` on made images of VOC's sizes,
one at a time, and reports the most memory it ever held (``ru_maxrss``). Runs on N and on 4 N images take
turns. Validation that kept logits or one-hot maps would add 22 MB an image and more. Target: a ratio of 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
DRAWN = 6  # Pictures that a validation run keeps until its end.
SIZES = ((375, 500), (500, 375), (333, 500))
VALIDATE = """
import resource, sys
from attnlab.cli import main
main(sys.argv[1:])
print("peak KiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def made_set(folder: Path, count: int) -> Path:
    """Write smooth images with masks, in VOC's layout; the sizes take turns."""
    rng = np.random.default_rng(0)
    voc = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / name).mkdir(parents=True)
    for k in range(count):
        height, width = SIZES[k % len(SIZES)]
        colours = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        colours.resize((width, height), Image.Resampling.BICUBIC).save(voc / f"JPEGImages/{k}.jpg")
        regions = Image.fromarray(rng.integers(0, 21, (6, 8), np.uint8))
        regions.resize((width, height), Image.Resampling.NEAREST).save(voc / f"SegmentationClass/{k}.png")
    for split in ("train", "val"):
        names = "".join(f"{k}\n" for k in range(count))
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text(names)
    return folder


def peak_mebibytes(root: Path, logs: Path) -> float:
    """Peak memory of one validation run, in a fresh process."""
    arguments = [
        "validate",
        "--data=VOCSegmentationDataModule",
        f"--data.root={root}",
        "--data.num_workers=0",
        f"--trainer.logger.init_args.save_dir={logs}",
        "--trainer.accelerator=cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-c", VALIDATE, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.rsplit("peak KiB", 1)[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=36, help="N, at least 6: as many as are drawn (default 36)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default 2)")
    options = parser.parse_args()
    if options.images < DRAWN:
        parser.error(f"--images must be at least {DRAWN}")

    counts = (options.images, 4 * options.images)
    peaks: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as temporary:
        roots = {count: made_set(Path(temporary) / str(count), count) for count in counts}
        for _ in range(options.rounds):
            for count in counts:
                peaks[count].append(peak_mebibytes(roots[count], Path(temporary) / "logs"))
    for count in counts:
        print(f"{count:4d} images   median of the peak {median(peaks[count]):8.1f} MiB")
    few, many = (median(peaks[count]) for count in counts)
    print(
        f"ratio of medians {many / few:.3f}, {(many - few) / (counts[1] - counts[0]):.2f} MiB an image more"
    )


if __name__ == "__main__":
    main()
