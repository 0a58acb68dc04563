"""Train one recipe with each of several attention modules and seeds, and print the table of what came out.

Run: ``python benchmarks/train_attentions.py --config configs/tinyimagenet_resnet18_ela.yaml --jobs 2 -- \
--data.root=/path/to/tiny-imagenet``

Every run is ``python main.py fit`` with one attention and one seed in a process of its own; what follows
``--`` goes to each. The score is that of the last epoch, not of the best one, so that the validation images
choose nothing. The training loss is the mean of the first, and of the last, tenth of the logged steps; one
that is no number stops the table. Runs that are done are not repeated: an interrupted table goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

MAIN = Path(__file__).parents[1] / "main.py"
LOSS = "train/loss_step"
ATTENTIONS = ["none", "se", "eca", "cbam", "ca", "ela_t", "ela_b", "ela_s", "ela_l"]


def train(config: Path, attention: str, seed: int, logs: Path, further: list[str]) -> dict[str, Any]:
    """One run, or what it gave when it was done before."""
    folder = logs / attention / f"seed_{seed}"
    done = folder / "result.json"
    if done.is_file():
        return json.loads(done.read_text())
    start = time.perf_counter()
    command = [
        sys.executable,
        str(MAIN),
        "fit",
        f"--config={config}",
        f"--model.attention={attention}",
        f"--seed_everything={seed}",
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={logs}",
        f"--trainer.logger.name={attention}",
        f"--trainer.logger.version=seed_{seed}",
        "--trainer.enable_progress_bar=false",
        *further,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT, env=environment)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = {key: float(value) for row in rows for key, value in row.items() if value}
    losses = [float(row[LOSS]) for row in rows if row.get(LOSS)]
    if not all(map(math.isfinite, losses)):
        raise SystemExit(f"{attention}, seed {seed}: a training loss is no number, see {folder}.")
    tenth = max(1, len(losses) // 10)
    hparams = yaml.safe_load((folder / "hparams.yaml").read_text())
    result = {
        **last,
        **{key: value for key, value in hparams.items() if key.startswith("cost.")},
        "first loss": mean(losses[:tenth]),
        "last loss": mean(losses[-tenth:]),
        "seconds": time.perf_counter() - start,
    }
    done.write_text(json.dumps(result, indent=1))
    return result


def table(results: dict[str, list[dict[str, Any]]], metric: str) -> str:
    """Markdown: an attention a row."""
    lines = [
        f"| attention | parameters (M) | MACs (M) | {metric}, mean | standard deviation | by seed "
        "| minus none, by seed | training loss, start | end |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    baseline = [run[metric] for run in results.get("none", [])]
    for name, runs in results.items():
        scores = [run[metric] for run in runs]
        spread = f"{stdev(scores):.4f}" if len(scores) > 1 else ""
        differences = [f"{score - base:+.4f}" for score, base in zip(scores, baseline, strict=False)]
        cells = [
            f"`{name}`",
            f"{runs[0]['cost.parameters'] / 1e6:.4f}",
            f"{runs[0]['cost.macs'] / 1e6:.2f}",
            f"{mean(scores):.4f}",
            spread,
            ", ".join(f"{score:.4f}" for score in scores),
            ", ".join(differences) if name != "none" else "",
            *(f"{mean(run[end] for run in runs):.3f}" for end in ("first loss", "last loss")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="the recipe")
    parser.add_argument("--attentions", nargs="+", default=ATTENTIONS, metavar="NAME", help="modules")
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each, with the seeds 0, 1, ... (default 3)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each (default 1)")
    parser.add_argument("--metric", default="val/top1", help="what is compared (default val/top1)")
    parser.add_argument("--logs", type=Path, default=Path("lightning_logs/attentions"), help="where runs lie")
    parser.add_argument("further", nargs="*", help="after --: more options of fit")
    options = parser.parse_args()
    jobs = [(name, seed) for seed in range(options.seeds) for name in options.attentions]

    def work(job: tuple[str, int]) -> dict[str, Any]:
        result = train(options.config, *job, options.logs, options.further)
        print(f"{job[0]} seed {job[1]}: {result[options.metric]:.4f}, {result['seconds']:.0f} s", flush=True)
        return result

    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(jobs, pool.map(work, jobs), strict=True))
    results = {name: [found[name, seed] for seed in range(options.seeds)] for name in options.attentions}
    print(table(results, options.metric))


if __name__ == "__main__":
    main()
