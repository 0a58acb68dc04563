"""Does a run that is killed again and again end as one that never was?

    uv run python tests/tools/kills.py                    12 settings, 20 kills each; status 1 if any differs
    uv run python tests/tools/kills.py --kills 2 w2-p1    settings whose names have the word; fewer kills

A setting is a task, a number of loader workers (w) and of processes (p; gloo, CPU). Its run is trained once
without a kill. Then lineages of it are started, killed by SIGKILL at a random moment, resumed with
``--ckpt_path last`` (or begun again, if there is no checkpoint yet), killed again, until the kills are done;
the last resume of a lineage runs to the end. In every other lineage checkpoints are written within epochs,
too (by the user's own ModelCheckpoint, ``step.ckpt``), and resumed from. All tensors of ``last.ckpt``
(weights, averages, optimizer), its schedules, its progress, the best score and the weights of ``best.ckpt``
are compared bit for bit. (A checkpoint given by its path begins a new run, whose best starts anew; where that
was done, the best is not compared.)

What a kill makes a run repeat is what it trained since the checkpoint: from ``last.ckpt`` at most an epoch,
from ``step.ckpt`` at most two steps. Moments are drawn over the time that the whole run took, so that some
fall into the start; one in four waits until a checkpoint is being written.

Runs are forked from this process, which has loaded the libraries; each is the real command line.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch  # noqa: F401
import timm  # noqa: F401
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.utils import tensorboard  # noqa: F401

import attnlab.cli.trainer  # noqa: F401
from attnlab.cli import main as attnlab_main

LONGEST = 900
"""Seconds after which a run counts as hanging."""
IN_A_LINEAGE = 5
"""Kills of one run before it may end."""
EPOCHS, STEPS = 4, 3
"""Epochs of a run, and optimizer steps in an epoch."""
STEP = "step.ckpt"

EMA = '{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9, "update_every_n_steps": 1}}'
RAMPED = '{"class_path": "attnlab.callbacks.RampedEMA", "init_args": {"decay": 0.9, "ramp_steps": 5}}'
IN_EPOCHS = (
    '{"class_path": "ModelCheckpoint", "init_args": {"filename": "step", "every_n_train_steps": 2, '
    '"save_top_k": 1, "monitor": null, "enable_version_counter": false}}'
)

DATA = ["--data.image_size=32", "--data.num_train=12", "--data.num_val=6", "--data.eval_batch_size=3"]
RUN = [
    f"--trainer.max_epochs={EPOCHS}",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
    "--pictures.count=0",
    "--report.per_class=false",
]
TASKS: dict[str, tuple[list[str], str]] = {
    # Mixing, dropout and momentum; an average of the weights.
    "classification": (
        [
            *("--model=ClassificationTask", "--model.network=timm/test_resnet"),
            *("--model.network_options.drop_rate=0.2", "--model.mixing.mixup_alpha=0.2"),
            *("--model.mixing.cutmix_alpha=1.0", "--model.attention=ela_t"),
            "--data=ShapesClassificationDataModule",
        ],
        EMA,
    ),
    # Mosaics for half of the epochs, and training sizes drawn a step.
    "detection": (
        [
            *("--model=DetectionTask", "--model.network=yolox_nano", "--model.network_options.size=64"),
            *("--model.network_options.train_sizes=[32,64]", "--model.attention=none"),
            *("--data=ShapesDetectionDataModule", "--data.mosaic=0.5", "--data.mixup=0.5"),
            *("--data.mosaic_size=32", "--data.strong_share=0.5"),
        ],
        RAMPED,
    ),
    "segmentation": (
        [
            *("--model=SegmentationTask", "--model.architecture=DeepLabV3Plus"),
            *("--model.encoder=tu-test_resnet", "--model.architecture_options.decoder_channels=16"),
            *("--model.attention=ela_t", "--model.attention.at=stage", "--model.optimizer=AdamW"),
            "--data=ShapesSegmentationDataModule",
        ],
        "",
    ),
}


class Setting(NamedTuple):
    """What is killed.

    Attributes:
        task: One of `TASKS`.
        workers: Loader workers per process.
        processes: Processes that train together.
    """

    task: str
    workers: int
    processes: int

    @property
    def name(self) -> str:
        return f"{self.task}-w{self.workers}-p{self.processes}"

    def words(self, data: Path, logs: str, *, within_epochs: bool) -> list[str]:
        """The command; every setting takes three steps of four images in an epoch."""
        options, callback = TASKS[self.task]
        callbacks = [text for text in (callback, IN_EPOCHS if within_epochs else "") if text]
        spread = ["--trainer.devices=2", "--trainer.strategy=ddp"] if self.processes > 1 else []
        return [
            *("fit", *options, *DATA, *RUN, *spread),
            *(f"--data.root={data}", f"--data.num_workers={self.workers}"),
            *(f"--data.batch_size={4 // self.processes}", f"--trainer.logger.save_dir={logs}"),
            f"--trainer.callbacks=[{','.join(callbacks)}]",
        ]


SETTINGS = [Setting(task, workers, n) for task in TASKS for workers in (0, 2) for n in (1, 2)]


def _work(words: Sequence[str], rank: int, processes: int, port: int, log: Path) -> int:
    """The command in this process; what it says goes into a file."""
    signal.alarm(LONGEST)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
        rank_zero_only.rank = rank
    try:
        attnlab_main(list(words))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


class Run:
    """A running command, of one or several processes; their loader workers die with them.

    Args:
        setting: How many processes.
        words: The command.
        folder: Where it runs, and what it says is kept.
    """

    def __init__(self, setting: Setting, words: Sequence[str], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log, self.groups = folder / "said", []
        for rank in range(setting.processes):
            if (child := os.fork()) == 0:
                os.setpgid(0, 0)  # A group of its own, to kill it with its workers.
                os.chdir(folder)
                status = _work(words, rank, setting.processes, port, self.log)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            self.groups.append(child)

    def kill(self) -> None:
        """As a machine that loses its power: all at once, without a word."""
        for child in self.groups:
            for kill in (os.killpg, os.kill):  # It may have no group yet.
                try:
                    kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.wait()

    def wait(self) -> list[int]:
        """The processes' exit statuses."""
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in self.groups]
        self.groups = []
        return statuses

    def is_running(self) -> bool:
        """Whether the first process runs; it is left for `wait`."""
        return os.waitid(os.P_PID, self.groups[0], os.WEXITED | os.WNOWAIT | os.WNOHANG) is None

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: It failed.
        """
        if any(statuses := self.wait()):
            said = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"The run ended with {statuses}:\n{said}")


def saved(logs: Path, name: str) -> Path | None:
    """The newest checkpoint of a name in a folder of runs."""
    found = sorted(logs.rglob(f"checkpoints/{name}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def resume_from(logs: Path) -> list[str]:
    """What is added to the command: the newest checkpoint of this lineage, if there is one."""
    last, step = saved(logs, "last.ckpt"), saved(logs, STEP)
    # One of an epoch's last step lacks its validation: going on from there would leave that out.
    within = step is not None and steps(step) % STEPS > 0
    if step is not None and within and (last is None or steps(step) > steps(last)):
        return [f"--ckpt_path={step}"]
    if last is None:
        return []
    # A run from a path that has no last.ckpt yet is the newest, and `last` would be its own.
    newest = max(logs.glob("version_*"), key=lambda run: int(run.name.removeprefix("version_")))
    return ["--ckpt_path=last" if last.is_relative_to(newest) else f"--ckpt_path={last}"]


def steps(path: Path) -> int:
    """The optimizer steps of a checkpoint."""
    return int(torch.load(path, weights_only=True, mmap=True)["global_step"])


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors and plain values of nested dicts and lists, by their path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from leaves(item, f"{name}.{number}")
    else:
        yield name, value


def ending(logs: Path) -> dict[str, Any]:
    """All that must be the same at the end of a run, by its path."""
    last, best = saved(logs, "last.ckpt"), saved(logs, "best.ckpt")
    assert last is not None
    assert best is not None
    content = torch.load(last, weights_only=True)
    parts = ("epoch", "global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    kept = {part: content[part] for part in parts if part in content}
    scores = [s["best_model_score"] for s in content["callbacks"].values() if "best_model_score" in s]
    kept["best_score"] = [score for score in scores if score is not None]
    kept["best"] = torch.load(best, weights_only=True)["state_dict"]
    return dict(leaves(kept))


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The paths at which two endings differ, also those that only one has."""

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            return one.dtype == other.dtype and torch.equal(one, other)
        return type(one) is type(other) and one == other

    paths = sorted(ours.keys() | theirs.keys())
    missing = object()
    return [path for path in paths if not same(ours.get(path, missing), theirs.get(path, missing))]


class Outcome(NamedTuple):
    """What came of a setting.

    Attributes:
        kills: Runs killed before they ended.
        writing: Those of them killed while a checkpoint was written.
        resumes: Runs from a checkpoint.
        within: Those of them from within an epoch.
        lineages: Runs brought to their end.
        differing: What differs from the run without a kill.
    """

    kills: int
    writing: int
    resumes: int
    within: int
    lineages: int
    differing: list[str]

    def row(self, setting: Setting) -> str:
        told = "identical" if not self.differing else f"DIFFERS: {', '.join(self.differing[:4])}"
        counts = (self.kills, self.writing, self.resumes, self.within, self.lineages)
        return f"{setting.name:22}" + "".join(f"{count:9}" for count in counts) + f"  {told}"


HEADING = f"{'setting':22}" + "".join(
    f"{word:>9}" for word in ("kills", "writing", "resumes", "mid-epoch", "lineages")
)


def stop_at(run: Run, moment: float, logs: Path, *, while_writing: bool) -> tuple[bool, bool]:
    """Kill a run at a moment, or at the first writing of a checkpoint after it.

    Returns:
        Whether it was still running, and whether a checkpoint was being written.
    """
    begin, half = time.monotonic(), "checkpoints/.*.partial"
    left = set(logs.rglob(half))  # By earlier kills.
    while run.is_running():
        late = time.monotonic() - begin >= moment
        if late and (not while_writing or set(logs.rglob(half)) - left):
            run.kill()
            return True, bool(set(logs.rglob(half)) - left)
        time.sleep(0.001 if late else min(0.01, moment))
    run.finish()
    return False, False


def try_out(setting: Setting, kills: int, folder: Path, seed: int) -> Outcome:
    """Kill a setting's runs, and compare their ends with that of one left alone."""
    drawn = random.Random(f"{seed} {setting.name}")
    data = folder.parent / "data"
    wanted: dict[bool, dict[str, Any]] = {}
    took: dict[bool, float] = {}
    done = writing = resumes = within = lineages = 0
    wrong: list[str] = []
    while done < kills:
        # The user's callback is a part of the run: its twin has it, too.
        within_epochs = lineages % 2 == 1
        if within_epochs not in wanted:
            alone, begin = f"alone{int(within_epochs)}", time.monotonic()
            words = setting.words(data, alone, within_epochs=within_epochs)
            Run(setting, words, folder).finish()
            took[within_epochs] = time.monotonic() - begin
            wanted[within_epochs] = ending(folder / alone)
        logs = folder / f"lineage{lineages}"
        words = setting.words(data, logs.name, within_epochs=within_epochs)
        left, by_path = min(IN_A_LINEAGE, kills - done), False
        while True:
            more = resume_from(logs)
            resumes += bool(more)
            within += any(STEP in word for word in more)
            by_path |= any("/" in word for word in more)
            more = [word.replace(f"{folder}/", "") for word in more]
            run = Run(setting, [*words, *more], folder)
            if left == 0:
                run.finish()
                break
            killed, wrote = stop_at(
                run, drawn.uniform(0, took[within_epochs]), logs, while_writing=drawn.random() < 0.25
            )
            if not killed:
                break
            done, left, writing = done + 1, left - 1, writing + wrote
        lineages += 1
        found = differing(ending(logs), wanted[within_epochs])
        wrong += [path for path in found if not (by_path and path.startswith("best"))]
        shutil.rmtree(logs)
    return Outcome(done, writing, resumes, within, lineages, wrong)


def main(words: Sequence[str]) -> int:
    """Try the chosen settings out, and print a row for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("settings", nargs="*", help="words in the names of settings, such as w2 or detection")
    parser.add_argument("--kills", type=int, default=20, help="kills per setting (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    given = parser.parse_args(list(words))
    chosen = [s for s in SETTINGS if all(word in s.name for word in given.settings)]
    if not chosen:
        parser.error(f"no such setting; there are {', '.join(setting.name for setting in SETTINGS)}")
    # A killed writer of shared memory leaves a core otherwise.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(HEADING, flush=True)
    status = 0
    with tempfile.TemporaryDirectory() as place:
        for setting in chosen:
            folder = Path(place) / setting.name
            folder.mkdir()
            try:
                outcome = try_out(setting, given.kills, folder, given.seed)
            except RuntimeError as error:
                print(f"{setting.name:22}  FAILED: {error}", flush=True)
                status = 1
                continue
            print(outcome.row(setting), flush=True)
            status |= bool(outcome.differing)
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
