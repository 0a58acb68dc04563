"""What a run costs besides its steps, in two checkouts of this repository, side by side.

Run: ``python benchmarks/run_cost.py OTHER [--rounds 5]``, OTHER being the folder of another checkout
(``git worktree add OTHER COMMIT``)

Each round trains one step of two images of 64 pixels, and validates on one, in a process of its own with
either checkout in turn: a DeepLab, a RetinaNet, a YOLOX and a ResNet. What that takes is nearly all paid once
a run: imports, options, the network, the look at the data, counts, pictures, checkpoints. A second row is the
part after imports, the time inside ``AttnlabCLI.run_command``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parents[1]
SHAPES = ["--data.num_train=352", "--data.num_val=16", "--data.image_size=64", "--data.eval_batch_size=1"]
RUNS = {
    "DeepLab": ["--task=segmentation", "--model.architecture=DeepLabV3Plus", "--model.encoder=resnet50"],
    "RetinaNet": ["--task=detection", "--model.network=retinanet", "--model.network_options.min_size=64"],
    "YOLOX": ["--task=detection", "--model.network=yolox_nano", "--model.network_options.size=64"],
    "ResNet": ["--task=classification", "--model.network=resnet18"],
}
INSIDE = """
import sys, time
from attnlab.cli.trainer import AttnlabCLI
start = time.perf_counter()
AttnlabCLI.run_command(sys.argv[1:])
print(f"INSIDE {time.perf_counter() - start}")
"""


def seconds(checkout: Path, options: list[str], folder: Path) -> tuple[float, float]:
    """What a run takes: the whole process, and the part after imports."""
    command = [
        *(sys.executable, "-c", INSIDE, "fit", *options, *SHAPES),
        "--data.root=data",
        "--data.batch_size=2",
        "--data.num_workers=0",
        "--model.attention=ela_b",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
        "--trainer.limit_val_batches=1",
        "--trainer.num_sanity_val_steps=0",
        f"--trainer.logger.init_args.save_dir={folder}/logs-{time.time_ns()}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
    return whole, float(done.stdout.rpartition("INSIDE ")[2])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    options = parser.parse_args()
    print("| run | | other, s | here, s | ratio (rounds) |\n| --- | --- | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in RUNS.items():
            rounds = []
            # The first one draws the data.
            for number in range(options.rounds + 1):
                pair = [seconds(checkout, flags, Path(folder)) for checkout in (options.other, HERE)]
                rounds += [pair] if number else []
            for part, label in enumerate(("process", "after imports")):
                other, here = ([pair[side][part] for pair in rounds] for side in (0, 1))
                ratios = sorted(b / a for a, b in zip(other, here, strict=True))
                spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                print(
                    f"| {name} | {label} | {median(other):.2f} | {median(here):.2f} | {spread} |", flush=True
                )


if __name__ == "__main__":
    main()
