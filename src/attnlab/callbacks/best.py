"""The best checkpoint: the network of the best score, saved when it was scored."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from attnlab.callbacks.checkpoint_io import second_name
from attnlab.errors import AttnlabError

BEST, LAST = "best", "last"
# What ModelCheckpoint adds to the logged values.
COUNTERS = ("epoch", "step")


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the network of the best score, and with ``save_top_k`` the next best, too.

    A score of validation is looked at after every validation, one of training at the end of the epoch. At
    the end of an epoch the file is written when the epoch is over, where a run can be resumed exactly.

    If another file name is set, or several checkpoints are kept, ``best.ckpt`` is a second name of the best.
    A resumed run knows the best by its file's name, wherever the run's folder lies by now.

    Args:
        **options: Lightning's. ``save_on_train_epoch_end`` is not among them.

    Raises:
        AttnlabError: Options contradict each other.
    """

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options, save_on_train_epoch_end=True)
        except MisconfigurationException as error:
            raise AttnlabError(f"--checkpoint: {error}") from error
        within = [name for name in ("every_n_train_steps", "train_time_interval") if options.get(name)]
        if within and self.monitor is not None:
            raise AttnlabError(
                f"--checkpoint.{within[0]} saves between validations, when {self.monitor} is not known. To "
                "keep the newest, add --checkpoint.monitor null; with --checkpoint.save_top_k -1, all. "
                "To find the best within epochs, validate more often: --trainer.val_check_interval. For "
                "both, add a ModelCheckpoint to --trainer.callbacks."
            )
        self.filename = self._template(self.filename)
        # Whether the score is known to come from validation, whether one has run, and one is to be saved.
        self._of_validation = self._validated = self._due = self._known_before = False
        self._named: tuple[str, Tensor | None] | None = None

    def _template(self, name: str | None) -> str:
        """The file name, with what keeps several files apart."""
        if name == LAST:
            raise AttnlabError("--checkpoint.filename last is the name of the last checkpoint; use another.")
        if name in (None, BEST):
            if self.monitor is None:
                return "{epoch}-{step}"
            return BEST if self.save_top_k in (0, 1) else f"{BEST}-{{epoch}}-{{step}}"
        assert name is not None
        return name if self.save_top_k in (0, 1) or "{step" in name else f"{name}-{{step}}"

    @property
    def fields(self) -> list[str]:
        """The logged values in the file name."""
        found = re.findall(r"\{(.*?)[:\}]", self.filename or "")
        return [name for name in found if name not in COUNTERS]

    @property
    def named_best(self) -> Path | None:
        """The path of ``best.ckpt``; None if nothing was saved, or nothing is monitored."""
        if self.monitor is None or not self.best_model_path:
            return None
        return Path(self.best_model_path).with_name(f"{BEST}{self.FILE_EXTENSION}")

    @property
    def state_key(self) -> str:
        """The score alone: whatever else has changed, its best is the best."""
        return f"{type(self).__qualname__}[{self.monitor}, {self.mode}]"

    def format_checkpoint_name(self, *args: Any, **kwargs: Any) -> str:
        """A path in the folder itself: the slash of ``val/mIoU`` makes no folder in it."""
        path = super().format_checkpoint_name(*args, **kwargs)
        folder = Path(self.dirpath or "")
        return str(folder / "_".join(Path(path).relative_to(folder).parts))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder; reject averaged weights without the average."""
        super().setup(trainer, pl_module, stage)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        averaged = [each for each in callbacks if isinstance(each, WeightAveraging)]
        if self.save_weights_only and averaged:
            raise AttnlabError(
                f"--checkpoint.save_weights_only would save the weights in training, but those that "
                f"{type(averaged[0]).__name__} averages are scored. Leave it out."
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether the score is known from training."""
        self._known_before = self.monitor in trainer.callback_metrics

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, or at the end of an epoch leave it to that."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if not self._validated and not self._known_before:
            self._of_validation = self.monitor in trainer.callback_metrics
        if trainer.sanity_checking:
            return
        self._validated = True
        if not self._of_validation:
            return
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._due = True
        else:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is due.

        Raises:
            AttnlabError: After a validation, nothing has logged the score.
        """
        missing = self.monitor not in (None, *COUNTERS, *trainer.callback_metrics)
        if missing and self._validated and self.save_top_k != 0:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise AttnlabError(f"Nothing has logged --checkpoint.monitor {self.monitor}. Logged: {known}.")
        if not missing and (self._due or not self._of_validation):
            self._save(trainer, pl_module)
        self._due = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """With ``save_on_exception``, save beside the best."""
        name, self.filename = self.filename, "exception-{epoch}-{step}"
        try:
            super().on_exception(trainer, pl_module, exception)
        finally:
            self.filename = name

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the score is among the best, and give the best its name."""
        super().on_train_epoch_end(trainer, pl_module)
        best = self.named_best
        now = (self.best_model_path, self.best_model_score)
        if best is None or not trainer.is_global_zero or str(best) == now[0] or now == self._named:
            return
        partial = best.with_name(f".{best.name}.{os.getpid()}.partial")
        second_name(Path(self.best_model_path), partial)
        partial.replace(best)
        self._named = now

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look for the best of the run in this run's folder, as its folder may have another path now."""
        states = checkpoint["callbacks"]
        # Of before this class.
        former = f"{ModelCheckpoint.__qualname__}{{'monitor': {self.monitor!r}, 'mode': {self.mode!r},"
        found = [self.state_key, *(key for key in states if str(key).startswith(former))]
        state = next((states[key] for key in found if key in states), None)
        if state is not None:
            here = self._found_here(state) if trainer.is_global_zero else {}
            states[self.state_key] = {**state, "best_k_models": trainer.strategy.broadcast(here)}

    def _found_here(self, state: dict[str, Any]) -> dict[str, Tensor]:
        """Paths and scores of the best, as far as they are in this run's folder."""
        folder, found = Path(str(self.dirpath)), {}
        newest = {state.get("best_model_path") or "none": torch.tensor(0.0)}
        for path, score in (newest if self.monitor is None else state["best_k_models"]).items():
            here = folder / Path(path).name
            if not here.is_file():
                continue
            if here.stem == BEST and self.filename != BEST:
                # It is about to be a second name of a better one.
                here = here.with_stem(f"{BEST}-earlier")
                second_name(folder / Path(path).name, here)
            found[str(here)] = score
        ranked = sorted(found, key=lambda path: float(found[path]), reverse=self.mode == "max")
        kept = ranked if self.save_top_k == -1 else ranked[: max(self.save_top_k, 1)]
        return {path: found[path] for path in kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `on_load_checkpoint` has found, best first."""
        paths = state_dict["best_k_models"]
        if not paths:
            return
        best, worst = next(iter(paths)), list(paths)[-1]
        if self.monitor is None:
            self.best_model_path = best
            return
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": best,
                "best_model_score": torch.as_tensor(paths[best]),
                "kth_best_model_path": worst,
                "kth_value": torch.as_tensor(paths[worst]),
                "last_model_path": "",
            }
        )
