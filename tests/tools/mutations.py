"""Would the tests see it? Thirty small mistakes, put into a copy of the source one by one.

    uv run python tests/tools/mutations.py            all of them; status 1 if fewer than 28 are caught
    uv run python tests/tools/mutations.py mosaic     those whose file's name has the word

A mistake that no test sees is no proof that a test is missing, since some change nothing that anybody could
see; none of these is of that kind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NEEDED = 28
LONGEST = 600
"""Seconds after which a run of tests counts as hanging, and so as caught."""


class Mutation(NamedTuple):
    """A mistake.

    Attributes:
        file: Below ``src/attnlab``.
        old: What stands there, once.
        new: What is put in its place.
        tests: Files below ``tests`` of which one should fail.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = [
    # attention
    Mutation(
        "attention/modules/simam.py",
        "max(x.shape[2] * x.shape[3] - 1, 1)",
        "x.shape[2] * x.shape[3]",
        ("attention/modules/test_simam.py",),
    ),
    Mutation(
        "attention/kernels/strips.py",
        "(_gate(dmean_h, dy) / width)",
        "(_gate(dmean_h, dy) / height)",
        ("attention/kernels/test_strips.py",),
    ),
    Mutation(
        "attention/modules/triplet.py",
        "(gate / len(gates))",
        "(gate / 3)",
        ("attention/modules/test_triplet.py",),
    ),
    Mutation(
        "tasks/finite.py",
        'torch.isfinite(kept["loss"])',
        '~torch.isnan(kept["loss"])',
        ("tasks/test_finite.py",),
    ),
    Mutation(
        "attention/wrapper.py",
        "self.attention_alpha.to(x.dtype) * (attended - x)",
        "self.attention_alpha.to(x.dtype) * attended",
        ("attention/test_placement.py",),
    ),
    Mutation(
        "attention/placement.py",
        "added -= sum(parameter.numel() for parameter in wrapper.attention.parameters())",
        "added -= 0",
        ("attention/test_placement.py",),
    ),
    # models
    Mutation(
        "models/detectors/simota.py",
        "OUTSIDE * ~(inside & centred)",
        "OUTSIDE * ~(inside | centred)",
        ("models/detectors/test_simota.py",),
    ),
    Mutation(
        "models/detectors/uniform_matching.py",
        "p=1",
        "p=2",
        ("models/detectors/test_uniform_matching.py",),
    ),
    Mutation(
        "models/detectors/resizing.py",
        "-(-max(sides) // self.divisor) * self.divisor",
        "(max(sides) // self.divisor + 1) * self.divisor",
        ("models/detectors/test_resizing.py",),
    ),
    Mutation(
        "tasks/freezing.py",
        "layer.train(not frozen)",
        "layer.train(frozen)",
        ("tasks/test_base.py",),
    ),
    # data
    Mutation(
        "data/sampling.py",
        "counted=position < self.length",
        "counted=position <= self.length",
        ("data/test_sampling.py",),
    ),
    Mutation(
        "data/voc_xml.py",
        "(x0 - 1, y0 - 1, x1, y1)",
        "(x0 - 1, y0 - 1, x1 - 1, y1 - 1)",
        ("data/test_voc_xml.py",),
    ),
    Mutation(
        "data/transforms.py",
        "rng.randint(0, width - columns), rows",
        "rng.randint(0, max(0, width - columns - 1)), rows",
        ("data/test_transforms.py",),
    ),
    Mutation(
        "data/detection/mosaic.py",
        "rng.randrange(length) for _ in range(3)",
        "rng.randrange(max(1, length - 1)) for _ in range(3)",
        ("data/detection/test_mosaic.py",),
    ),
    Mutation(
        "callbacks/ramped_ema.py",
        "(-step / self.ramp_steps).exp()",
        "(-(step + 1) / self.ramp_steps).exp()",
        ("callbacks/test_ramped_ema.py",),
    ),
    Mutation(
        "data/detection/coco_file.py",
        'and all(entry.get("name")',
        'and any(entry.get("name")',
        ("data/detection/test_coco_exports.py", "data/detection/test_coco.py"),
    ),
    Mutation(
        "data/checks.py",
        " and _JPEG_END not in body[-_TAIL:]",
        "",
        ("data/test_checks.py", "data/test_images.py"),
    ),
    Mutation(
        "data/segmentation/mask_values.py",
        "self._ignored > _MUCH or binary",
        "self._ignored > _MUCH and binary",
        ("data/segmentation/test_mask_values.py",),
    ),
    # metrics
    Mutation(
        "metrics/coco_ap.py",
        "_mean(everything[5])",
        "_mean(everything[4])",
        ("metrics/test_coco_ap.py",),
    ),
    Mutation(
        "metrics/voc_ap.py",
        "np.searchsorted(10 * found, np.arange(11) * positives)",
        'np.searchsorted(10 * found, np.arange(11) * positives, "right")',
        ("metrics/test_voc_ap.py",),
    ),
    Mutation(
        "metrics/classification.py",
        "(index < label[:, None])",
        "(index <= label[:, None])",
        ("metrics/test_classification.py",),
    ),
    Mutation(
        "metrics/segmentation.py",
        "if u > 0}",
        "if h > 0}",
        ("metrics/test_segmentation.py",),
    ),
    # drawing
    Mutation(
        "drawing/boxes.py",
        "both >= 0.5 * union",
        "both > 0.5 * union",
        ("drawing/test_boxes.py",),
    ),
    # tasks
    Mutation(
        "tasks/losses.py",
        ".clamp(min=1e-7)",
        "",
        ("tasks/test_losses.py",),
    ),
    Mutation(
        "tasks/optimization.py",
        "(step / self.warmup_steps) **",
        "((step + 1) / self.warmup_steps) **",
        ("tasks/test_optimization.py",),
    ),
    Mutation(
        "tasks/mixing.py",
        "self.kinds[int(torch.randint(len(self.kinds), ()))]",
        "self.kinds[0]",
        ("tasks/test_mixing.py",),
    ),
    Mutation(
        "tasks/identity.py",
        ', "stem_stride")',
        ")",
        ("tasks/test_identity.py",),
    ),
    # views, callbacks, and what is beside them
    Mutation(
        "views/classification.py",
        "else -log_own, -indices[i])",
        "else -log_own, indices[i])",
        ("views/test_classification.py",),
    ),
    Mutation(
        "callbacks/checkpoint_io.py",
        '("epoch", "global_step", "loops")',
        '("epoch", "global_step")',
        ("callbacks/test_checkpoint_io.py",),
    ),
    Mutation(
        "runs.py",
        'int(float(row.get("step") or 0)) <= steps',
        'int(float(row.get("step") or 0)) < steps',
        ("test_runs.py",),
    ),
]


def run_tests(source: Path, tests: Sequence[str]) -> bool:
    """Whether the quick ones among the tests pass on a copy of the source.

    Raises:
        RuntimeError: They could not be run.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    options = [
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "-m",
        "not slow and not nightly",
        "-p",
        "no:cacheprovider",
    ]
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-x",
        "-q",
        *options,
        *(f"tests/{test}" for test in tests),
    ]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    # 1: a test failed; 2: a test file could not be imported.
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def apply(mutation: Mutation, source: Path) -> str:
    """Put a mistake into a copy of the source; the file's content as it was.

    Raises:
        ValueError: What is to be replaced is not there exactly once.
    """
    path = source / "attnlab" / mutation.file
    text = path.read_text(encoding="utf-8")
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(f"src/attnlab/{mutation.file} has '{mutation.old}' {count} times, not once.")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return text


def main(words: Sequence[str]) -> int:
    """Put in each of the mistakes, run its tests, and print what was seen."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.file for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if not run_tests(source, sorted({test for mutation in chosen for test in mutation.tests})):
            print("The tests fail without any mistake; nothing can be said.")
            return 2
        survived = 0
        for mutation in chosen:
            whole, start = apply(mutation, source), time.monotonic()
            passed = run_tests(source, mutation.tests)
            (source / "attnlab" / mutation.file).write_text(whole, encoding="utf-8")
            survived += passed
            seconds = time.monotonic() - start
            change = f"{mutation.old.strip()[:44]} -> {mutation.new.strip()[:44] or 'nothing'}"
            print(
                f"{'SURVIVED' if passed else 'caught':8} {seconds:4.0f} s  {mutation.file}: {change}",
                flush=True,
            )
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    return int(len(chosen) - survived < min(NEEDED, len(chosen)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
