"""Which share of a detector's training step its assignment of anchors to objects takes.

Run: ``python benchmarks/assignment.py [--network yolox_nano] [--size 416] [--batch 8] [--objects 7]``

A training step is forward, losses, backward and an SGD step, on the CPU, on made images of the network's size
with as many objects each as asked for (COCO has 7.3 on average). The assignment is timed within these very
steps, from its call to its return. Target: at most 15 % of a step of YOLOX-nano at 416 px.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.models import build_detector
from attnlab.models.detectors import yolof, yolox


@dataclass(frozen=True)
class Subject:
    """A network and its assignment.

    Attributes:
        build: Number of classes and image size -> the network.
        caller: The module that calls the assignment.
        function: Name of the assignment in that module.
    """

    build: Callable[[int, int], nn.Module]
    caller: ModuleType
    function: str


SUBJECTS = {
    "yolox_nano": Subject(lambda classes, size: yolox.yolox("nano", classes, size=size), yolox, "sim_ota"),
    "yolof": Subject(
        lambda classes, size: build_detector("yolof", classes, {"min_size": size, "max_size": size}).network,
        yolof,
        "match_uniformly",
    ),
    "yolox_s": Subject(lambda classes, size: yolox.yolox("s", classes, size=size), yolox, "sim_ota"),
}


def timed(subject: Subject, times: list[float]) -> None:
    """Let the assignment write down how long each of its calls takes."""
    assign = getattr(subject.caller, subject.function)

    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = assign(*args, **kwargs)
        times.append(time.perf_counter() - start)
        return result

    setattr(subject.caller, subject.function, measured)


def targets(batch: int, objects: int, classes: int, size: int) -> list[dict[str, Tensor]]:
    """Boxes of sizes from 1/50 of the image to all of it, small ones more often."""
    made = []
    for _ in range(batch):
        sides = size * 0.02 ** torch.rand(objects, 2)
        corners = torch.rand(objects, 2) * (size - sides)
        boxes = torch.cat([corners, corners + sides], dim=1)
        made.append({"boxes": boxes, "labels": torch.randint(0, classes, (objects,))})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=SUBJECTS, default="yolox_nano")
    parser.add_argument("--size", type=int, default=416, help="side of the images in pixels (default 416)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (default 8)")
    parser.add_argument("--objects", type=int, default=7, help="objects an image (default 7)")
    parser.add_argument("--classes", type=int, default=80, help="number of classes (default 80)")
    parser.add_argument("--rounds", type=int, default=7, help="steps that count (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    subject = SUBJECTS[options.network]
    network = subject.build(options.classes, options.size).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    images = torch.rand(options.batch, 3, options.size, options.size)
    truths = targets(options.batch, options.objects, options.classes, options.size)
    assignments: list[float] = []
    timed(subject, assignments)

    steps, assigning = [], []
    for _ in range(options.rounds + 1):
        assignments.clear()
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.stack(list(network(images, truths).values())).sum().backward()
        optimizer.step()
        steps.append(time.perf_counter() - start)
        assigning.append(sum(assignments))  # Some networks assign image by image.
    steps, assigning = steps[1:], assigning[1:]  # The first step also allocates.
    shares = sorted(100 * part / whole for part, whole in zip(assigning, steps, strict=True))

    print(
        f"{options.network}, {options.batch} images of {options.size} px, {options.objects} objects each, "
        f"{options.classes} classes, {options.threads} thread(s), {options.rounds} steps"
    )
    print(f"{'training step':<34} {1e3 * median(steps):8.1f} ms")
    print(f"{'assignment':<34} {1e3 * median(assigning):8.1f} ms")
    print(f"{'share of the step':<34} {median(shares):8.2f} %   (steps: {shares[0]:.2f} to {shares[-1]:.2f})")


if __name__ == "__main__":
    main()
