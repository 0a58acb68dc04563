"""What scoring detections costs, beside torchmetrics with its pycocotools backend, in time and memory.

Run: ``python benchmarks/detection_metric.py [--images 5000] [--rounds 3]``

Both sides are given the same made images, in batches: 7.2 objects and 100 detections each, of 80 classes of
which few are frequent; about one object in 80 is a crowd. Each run is a process of its own, and the sides
take turns. Time is that of all updates and of the scores at the end, without making the images; where other
work shares the machine, the CPU time is the better measure. Memory is the most that the process ever held
(``ru_maxrss``) over what it held after its imports. ``DetectionScores`` gives COCO's 12 numbers, the AP of
each class and VOC's AP50 in both forms, torchmetrics the 12 numbers. torchmetrics is given COCO's
thresholds in double precision: its own are rounded to single precision, which changes AP in the fifth
digit. Targets: at most 1/5 of the time and 0.6 of the memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from paired import ratio_line
from torchmetrics.detection import MeanAveragePrecision

from attnlab.metrics import DetectionScores

CLASSES = 80
OBJECTS, DETECTIONS = 7.2, 100
SIDES = {"attnlab": "attnlab", "torchmetrics": "torchmetrics, pycocotools"}


def made_batches(images: int, batch_size: int) -> Iterator[tuple[list[dict], list[dict]]]:
    """Batches of detections and targets; every object has a detection near it, the others are anywhere."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, CLASSES + 1)
    often /= often.sum()
    for start in range(0, images, batch_size):
        detections, targets = [], []
        for image in range(start, min(start + batch_size, images)):
            real = min(int(rng.poisson(OBJECTS)), DETECTIONS)
            boxes, labels = some_boxes(rng, real), rng.choice(CLASSES, real, p=often)
            target = {
                "boxes": boxes,
                "labels": labels,
                "iscrowd": rng.random(real) < 0.012,
                "area": (boxes[:, 2:] - boxes[:, :2]).prod(1) * 0.7,
            }
            more = DETECTIONS - real
            near = boxes + rng.normal(0, 4, boxes.shape)
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
            found = {
                "boxes": np.concatenate([near, some_boxes(rng, more)]),
                "scores": np.concatenate([rng.random(real), rng.random(more) ** 3]),
                "labels": np.concatenate([labels, rng.choice(CLASSES, more, p=often)]),
            }
            detections.append(as_tensors(found))
            targets.append({**as_tensors(target), "image_id": torch.tensor(image)})
        yield detections, targets


def some_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 400, (count, 2))
    return np.concatenate([corner, corner + np.exp(rng.uniform(2, 5.4, (count, 2)))], 1)


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {name: part.float() if part.is_floating_point() else part for name, part in tensors.items()}


def clocks() -> np.ndarray:
    """Seconds of wall-clock time and of this process on a CPU, from any start."""
    return np.array([time.perf_counter(), time.process_time()])


def held_kibibytes() -> int:
    """Memory that this process holds now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise SystemExit("/proc/self/status does not say VmRSS: this benchmark needs Linux.")


def one_side(side: str, images: int, batch_size: int) -> dict[str, float]:
    """Score all images by one side, in this process."""
    before = held_kibibytes()
    scores: Any
    if side == "attnlab":
        scores = DetectionScores([f"class {k}" for k in range(CLASSES)])
    else:
        scores = MeanAveragePrecision(
            backend="pycocotools",
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
        )
        scores.warn_on_many_detections = False
    updates = np.zeros(2)
    for detections, targets in made_batches(images, batch_size):
        start = clocks()
        scores.update(detections, targets)
        updates += clocks() - start
    start = clocks()
    ap = scores.result().coco["AP"] if side == "attnlab" else float(scores.compute()["map"])
    final = clocks() - start
    total = updates + final
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    times = {"updates": updates[0], "final": final[0], "total": total[0], "cpu": total[1]}
    return {**times, "memory": peak / 1024, "ap": ap}


def in_a_process(side: str, images: int, batch_size: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--images",
        str(images),
        "--batch_size",
        str(batch_size),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="number of images (default 5000)")
    parser.add_argument("--batch_size", type=int, default=16, help="images of an update (default 16)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--side", choices=list(SIDES), help="run this side only, here, and print it as json")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(one_side(options.side, options.images, options.batch_size)))
        return

    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            run = in_a_process(side, options.images, options.batch_size)
            runs[side].append(run)
            print(
                f"{side}: {run['total']:.1f} s, {run['cpu']:.1f} s of CPU, {run['memory']:.0f} MiB",
                file=sys.stderr,
            )

    print(f"{options.images} images, {DETECTIONS * options.images} detections, {CLASSES} classes")
    print(
        f"{'medians':<34} {'updates':>9} {'scores':>9} {'together':>9} {'of CPU':>9} {'memory':>12} {'AP':>9}"
    )
    for side, name in SIDES.items():
        keys = ("updates", "final", "total", "cpu", "memory", "ap")
        *times, memory, ap = (median(run[key] for run in runs[side]) for key in keys)
        shown = " ".join(f"{seconds:7.2f} s" for seconds in times)
        print(f"{name:<34} {shown} {memory:8.0f} MiB {ap:9.6f}")
    for what, key in (("time", "total"), ("CPU time", "cpu"), ("memory", "memory")):
        ours, theirs = ([run[key] for run in runs[side]] for side in SIDES)
        print(ratio_line(f"{what}, attnlab / torchmetrics", ours, theirs))


if __name__ == "__main__":
    main()
