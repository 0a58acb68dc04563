"""How long the command line takes to answer, beside importing torch and Lightning.

Run: ``python benchmarks/startup.py [--rounds 7]``

Each command is a process of its own; all are run in turn, round after round, after one round that fills the
file cache. Target: at most 1.5 times the import.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

from paired import interleaved, ratio_line

ROOT = Path(__file__).parents[1]
IMPORTS = "import torch, lightning"
COMMANDS = {
    f'python -c "{IMPORTS}"': ["-c", IMPORTS],
    "python main.py --help": ["main.py", "--help"],
    "python main.py attention list": ["main.py", "attention", "list", "--no-time"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    options = parser.parse_args()
    works = {
        name: partial(
            subprocess.run, [sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        for name, arguments in COMMANDS.items()
    }
    times = interleaved(works, options.rounds)
    for name, taken in times.items():
        print(f"{name:<34} {median(taken):6.2f} s")
    base, *others = times
    print("ratio to the import")
    for name in others:
        print(ratio_line(name, times[name], times[base]))


if __name__ == "__main__":
    main()
