"""The final table of a run."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.table import Table

from attnlab import checkpoints, data, tasks
from attnlab.callbacks.best import BestCheckpoint
from attnlab.callbacks.checkpoint_io import LastCheckpoint
from attnlab.callbacks.cost import CostReport
from attnlab.callbacks.evaluation import EvaluationCallback, monitored, shown
from attnlab.callbacks.exhibits import Pictures
from attnlab.callbacks.tensorboard import SCORE
from attnlab.errors import AttnlabError
from attnlab.tasks import BaseTask
from attnlab.trust import classes_of, refuse_strangers

# Hparams determined by the data.
FROM_DATA = ("class_names", "num_classes", "ignore_index")


class RunReport(EvaluationCallback):
    """Ends ``fit``, ``validate`` and ``test`` with a table of scores and cost, and the paths of their files.

    After ``fit`` it also suggests what to do next, and writes TensorBoard's hparams with the run's best and
    last scores, for comparison in the HParams tab.

    Args:
        per_class: Also list the score of each class: IoU in segmentation, accuracy in classification, AP50 in
            detection.
    """

    def __init__(self, per_class: bool = True) -> None:
        self.per_class = per_class
        self._best: float | None = None
        self._ending: tuple[Table, list[str]] | None = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the table, log the hparams."""
        if not trainer.is_global_zero or not isinstance(pl_module, BaseTask):
            return
        score = self._log_hparams(trainer, pl_module)
        monitor = getattr(trainer.checkpoint_callback, "monitor", None)
        rows = [] if score is None else [(f"best {monitor}", f"{score:.4f}")]
        self._end(trainer, pl_module, "val", rows)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the hparams so far, and say how to resume after an interruption."""
        trained = trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0
        if trained and trainer.is_global_zero and isinstance(pl_module, BaseTask):
            self._log_hparams(trainer, pl_module)
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.is_global_zero:
            print(self._how_to_resume(trainer, exception), flush=True)

    def _how_to_resume(self, trainer: Trainer, exception: BaseException) -> str:
        """One line for a run that a signal ended."""
        said = "Interrupted" if isinstance(exception, KeyboardInterrupt) else "Ended by SIGTERM"
        if trainer.state.fn != TrainerFn.FITTING:
            return f"{said}."
        for label, path in checkpoint_paths(trainer):
            if label == "last checkpoint":
                return f"{said}. To resume from {path}, run the same command with --ckpt_path last."
        return f"{said} before an epoch was done; nothing was saved."

    def ends(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Show the score in training; make the table in ``validate`` and ``test``."""
        if not trainer.is_global_zero or not isinstance(task, BaseTask):
            return
        if self.asked_for(trainer):
            self._end(trainer, task, stage, [])
        elif not trainer.sanity_checking:
            self._show_score(trainer, task)

    def _show_score(self, trainer: Trainer, task: BaseTask) -> None:
        """Log the score and the best so far as TensorBoard's first section."""
        score = monitored(trainer, self._best, task.monitor)
        if score is not None:
            name, value, self._best = score
            for board in boards(trainer):
                scores = {f"{SCORE}{name}": value, f"{SCORE}{name}_best": self._best}
                board.log_metrics(scores, trainer.global_step)

    # Not earlier: an open progress bar would be redrawn below the table.
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table, and below it lines to copy."""
        if self._ending is None:
            return
        table, lines = self._ending
        self._ending = None
        Console(soft_wrap=False).print(table)
        # Not with the console, which wraps paths at the terminal's width.
        print("\n".join(lines), flush=True)

    def _log_hparams(self, trainer: Trainer, task: BaseTask) -> float | None:
        """Log options and scores to TensorBoard; returns the best score."""
        checkpoint = trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_score", None)
        score = None if best is None else float(best)
        # TensorBoard hides runs without a score, and keeps the score names it reads first: a run interrupted
        # before its first validation gets the name of the score to come.
        monitor = getattr(checkpoint, "monitor", None) or task.monitor
        scores = {f"{SCORE}{monitor}_best": math.nan if score is None else score}
        for name, value in trainer.callback_metrics.items():
            if name == monitor or name.startswith("val/"):
                scores[f"{SCORE}{name}" if name == monitor else name] = float(value)
        # Other loggers show the last value of each metric with the options anyway.
        for board in boards(trainer):
            options = dict(board.hparams) or flat(dict(task.hparams))
            board.log_hyperparams(options, scores, trainer.global_step)
        return score

    def _end(self, trainer: Trainer, task: BaseTask, stage: str, rows: list[tuple[str, str]]) -> None:
        rows = [*rows, *task.summary(stage, per_class=self.per_class)]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, CostReport) and callback.cost is not None:
                rows += callback.cost.rows()
        if len(task.sites):
            rows.append(("attention", f"{task.attention.name} at {len(task.sites)} sites"))
        skipped = getattr(trainer.datamodule, "skipped", [])  # type: ignore[attr-defined]
        if skipped:
            rows.append(("bad images skipped", str(len(skipped))))
        command = trainer.state.fn.value if trainer.state.fn else ""
        table = Table(title=f"{command}: {type(task).__name__}", title_justify="left")
        table.add_column("what", no_wrap=True)
        table.add_column("value", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._ending = table, self._where(trainer, command, stage)

    def _where(self, trainer: Trainer, command: str, stage: str) -> list[str]:
        """Paths and, after training, suggested commands, one per line."""
        paths = checkpoint_paths(trainer)
        lines = [f"{label}: {path}" for label, path in paths]
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        folders = (each.folder for each in callbacks if isinstance(each, Pictures))
        for folder in set(filter(None, folders)):
            sheet = folder / f"{stage}.png"
            lines.append(f"pictures: {shown(sheet if sheet.is_file() else folder)}")
        # The logger's own folder: asking the Trainer is a collective call, but this is one process.
        logs = [f"tensorboard --logdir {shlex.quote(shown(board.log_dir))}" for board in boards(trainer)[:1]]
        best = next((path for label, path in paths if label == "best checkpoint"), None)
        if command != "fit":
            lines += [f"TensorBoard: {log}" for log in logs]
        elif best is not None:
            uv, main = prefixes()
            trust = " --trust_checkpoint true" if names_own_code(best) else ""
            options = f"--ckpt_path {shlex.quote(best)}{trust}"
            lines += ["", "Try next:", f"  {main} test {options}"]
            lines.append(f"  {main} predict {options} --data.predict_images FOLDER")
            lines += [f"  {uv}{log}" for log in logs]
        return lines


def prefixes() -> tuple[str, str]:
    """Prefixes of the environment's commands and of attnlab's own, as called here."""
    # Set by uv run, whose environment is not active in the shell.
    uv = "uv run " if "UV" in os.environ else ""
    called = Path(sys.argv[0]).name
    if called == "attnlab":
        return uv, f"{uv}attnlab"
    return uv, f"{uv or 'python '}{sys.argv[0] if called == 'main.py' else 'main.py'}"


def names_own_code(checkpoint: str) -> bool:
    """Whether a checkpoint names classes that are only imported if it is trusted."""
    classes = {"model": classes_of(tasks, BaseTask), "data": classes_of(data, data.DataModule)}
    try:
        refuse_strangers(checkpoints.remembered(checkpoints.read(Path(checkpoint))), checkpoint, classes)
    except AttnlabError:
        return True
    return False


def boards(trainer: Trainer) -> list[TensorBoardLogger]:
    """The run's loggers for TensorBoard."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def checkpoint_paths(trainer: Trainer) -> list[tuple[str, str]]:
    """Label and path of a run's checkpoints; those of a user's own ModelCheckpoint have the label of none."""
    found = []
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or not callback.best_model_path:
            continue
        best = callback.named_best if isinstance(callback, BestCheckpoint) else None
        path = best or Path(callback.best_model_path)
        word = f"{path.stem} " if best or isinstance(callback, LastCheckpoint) else ""
        found.append((f"{word}checkpoint", shown(path)))
    return found


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as one level of dotted names.

    Lists, and the options of a module, a network or an optimizer, become text: TensorBoard takes scalars, and
    separate columns would be empty for runs with other modules.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and not key.endswith("options"):
            result.update(flat(value, f"{prefix}{key}."))
        elif key not in FROM_DATA:
            result[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return result
