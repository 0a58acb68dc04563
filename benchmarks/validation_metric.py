"""What the validation metric costs, beside the network's forward pass, and how much memory it takes.

Run: ``python benchmarks/validation_metric.py [--size 513] [--classes 21] [--rounds 5] [--threads 1]``

The forward pass is that of DeepLabV3 on ResNet-18 at output stride 16, one image at a time, as validation
runs it. The metric is what follows: the class map, then the update of the confusion matrix. Both
are timed in turn. Target: at most 5 % of the forward pass. The memory is the largest sum of tensors that the
metric holds at one time, from torch's profiler, beside the logits and beside a one-hot int64 map of the same
size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from paired import interleaved, ratio_line
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from attnlab.metrics import SegmentationScores
from attnlab.models import build_segmenter
from attnlab.tasks.segmentation import class_map


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes that torch holds at most, at one time, more than before the work."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    held = peak = 0
    for event in record.events():
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=513, help="side of the image in pixels (default 513)")
    parser.add_argument("--classes", type=int, default=21, help="number of classes (default 21)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    size, classes = options.size, options.classes
    network = build_segmenter("DeepLabV3", "resnet18", classes, {"encoder_output_stride": 16}).network.eval()
    image = torch.randn(1, 3, size, size)
    mask = torch.randint(0, classes, (1, size, size))
    scores = SegmentationScores([f"class {k}" for k in range(classes)])

    with torch.inference_mode():
        logits: Tensor = network(image)

        def metric() -> None:
            scores.update(class_map(logits), mask)

        prediction = class_map(logits)
        times = interleaved(
            {
                "forward pass": lambda: network(image),
                "metric": metric,
                "  of it the class map": lambda: class_map(logits),
                "  of it update": lambda: scores.update(prediction, mask),
                "argmax(1), for comparison": lambda: logits.argmax(1),
            },
            options.rounds,
        )
        peak = peak_memory(metric)

    print(f"one image of {size} x {size}, {classes} classes, {options.threads} thread(s)")
    for name, taken in times.items():
        print(f"{name:<34} {1000 * median(taken):8.1f} ms")
    print(ratio_line("metric / forward pass", times["metric"], times["forward pass"]))
    mebi = 2**20
    print(f"{'logits':<34} {logits.nbytes / mebi:8.1f} MiB")
    print(f"{'metric, peak':<34} {peak / mebi:8.1f} MiB")
    print(f"{'a one-hot map would take':<34} {mask.numel() * classes * 8 / mebi:8.1f} MiB")


if __name__ == "__main__":
    main()
