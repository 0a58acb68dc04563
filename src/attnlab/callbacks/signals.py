"""What signals do to a run: SIGTERM ends it, SLURM's warning saves it and requeues its job."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from attnlab import launchers, runs
from attnlab.callbacks.checkpoint_io import LastCheckpoint


def _end_workers() -> None:
    """End the loaders' workers before this process leaves them.

    One that waits for it to fetch a batch prints a traceback when nobody comes, and one that a signal to the
    whole group ended first is an error to PyTorch.
    """
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(timeout=5)


class Signals(Callback):
    """Ends any command at SIGTERM with status 143, and requeues a training at SLURM's warning signal.

    Lightning ends such a run with status 0, as if it were done, and ``predict`` not at all. It requeues by
    saving within the signal's handler, in the middle of a step, in the working folder, where the next run of
    that folder takes it up. Here ``last.ckpt`` is saved after the step, in the run's folder, and only the
    same command of the same job takes it up; see `attnlab.launchers.of_job`.

    Args:
        words: The command as typed.
        slurm: The user's SLURM plugin, for its ``auto_requeue`` and ``requeue_signal``; None for the default.
    """

    def __init__(self, words: Sequence[str], slurm: SLURMEnvironment | None = None) -> None:
        self.words = list(words)
        self.job = launchers.slurm_job() if slurm is None or slurm.auto_requeue else None
        self.warning = getattr(signal, "SIGUSR1", None) if slurm is None else slurm.requeue_signal
        self._trainer: Trainer | None = None
        self._process = os.getpid()
        self._ended = self._warned = self._requeued = False

    def _listen(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handlers, which it puts back at the end."""
        self._trainer, self._process = trainer, os.getpid()
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGTERM, self._end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Ignored in a shell's background.
            signal.signal(signal.SIGINT, self._interrupt)
        if self.job is not None and self.warning is not None and trainer.state.fn == TrainerFn.FITTING:
            signal.signal(self.warning, self._warn)

    # Lightning registers its own before these.
    on_sanity_check_start = on_validation_start = on_test_start = on_predict_start = _listen

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; note in the run's folder which job it is of."""
        self._listen(trainer, pl_module)
        self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        folder = runs.folder_of(trainer) if trainer.is_global_zero else None
        if self.job is not None and folder is not None:
            launchers.note_job(folder, self.job, self.words, requeued=self._requeued)

    def _warn(self, signum: int, frame: FrameType | None) -> None:
        self._warned = True

    def _end(self, signum: int, frame: FrameType | None) -> None:
        """End as at Ctrl-C: at once, so that no process waits for another that is gone."""
        if os.getpid() != self._process:  # A worker that was just forked.
            os._exit(0)
        signal.signal(signum, signal.SIG_IGN)
        self._ended = True
        _end_workers()
        launcher = self._trainer.strategy.launcher if self._trainer is not None else None
        if launcher is not None:
            launcher.kill(signal.Signals(signum))
        raise SIGTERMException(128 + signum)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            _end_workers()
        signal.default_int_handler(signum, frame)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save and requeue, if any process was warned."""
        if self._ended:  # Raised where Python drops exceptions, such as in a destructor.
            raise SIGTERMException(128 + signal.SIGTERM)
        if self.job is None or self._requeued:
            return
        # After an epoch's last step its validation is still to come: it waits for the next step.
        if trainer.strategy.reduce_boolean_decision(self._warned, all=False) and not trainer.is_last_batch:
            self._save_and_requeue(trainer)

    def _save_and_requeue(self, trainer: Trainer) -> None:
        last = [c for c in trainer.callbacks if isinstance(c, LastCheckpoint)]  # type: ignore[attr-defined]
        if not last or last[0].dirpath is None:
            return
        path = Path(last[0].dirpath) / f"{last[0].filename}{ModelCheckpoint.FILE_EXTENSION}"
        trainer.save_checkpoint(path)
        self._requeued = True
        self._note(trainer)
        rank_zero_info(f"Warned by SLURM: saved {path}.")
        if trainer.is_global_zero:
            command = ["scontrol", "requeue", launchers.slurm_job_to_requeue() or ""]
            try:
                requeued = subprocess.run(command, check=False).returncode == 0
            except OSError:
                requeued = False
            done = "done" if requeued else "failed; to resume, run the same command with --ckpt_path last"
            rank_zero_info(f"{' '.join(command)}: {done}.")
