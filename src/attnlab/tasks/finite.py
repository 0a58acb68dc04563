"""Stops training at a non-finite loss, while the last checkpoint is still good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnlab.data.names import listed
from attnlab.errors import AttnlabError


class FiniteLoss:
    """Checks every training step's loss, on a GPU one step later.

    On a GPU, waiting for the current step's loss would leave the device idle. The update made in between is
    never saved: `look_back` comes before every checkpoint.
    """

    def __init__(self) -> None:
        self._last: tuple[torch.cuda.Event, Tensor, Callable[[], str]] | None = None

    def look_at(self, terms: Mapping[str, Tensor], batch: Mapping[str, Any], epoch: int, step: int) -> None:
        """Check a step's loss, or on a GPU that of the step before.

        Args:
            terms: The loss terms by name, including ``"loss"``; scalars.
            batch: The batch; its ``name`` holds the images' names.
            epoch: The epoch, counted from 0.
            step: Optimizer steps before this one.

        Raises:
            AttnlabError: The loss is not finite.
        """
        self.look_back()
        kept = {name: term.detach() for name, term in terms.items()}
        names = [str(name) for name in batch.get("name", [])]
        words = partial(_words, kept, names, epoch, step)
        finite = torch.isfinite(kept["loss"])
        if finite.device.type != "cuda":
            if not finite:
                raise AttnlabError(words())
            return
        flag = finite.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._last = copied, flag, words

    def look_back(self) -> None:
        """Check the last step's loss, unless that was done.

        Raises:
            AttnlabError: The loss is not finite.
        """
        last, self._last = self._last, None
        if last is not None:
            copied, flag, words = last
            copied.synchronize()
            if not flag:
                raise AttnlabError(words())


def _words(terms: Mapping[str, Tensor], names: list[str], epoch: int, step: int) -> str:
    parts = {name: term for name, term in terms.items() if name != "loss"} or terms
    values = ", ".join(f"{name} {float(term):g}" for name, term in parts.items())
    images = f" Images of the batch: {listed(names, 16)}." if names else ""
    return (
        f"The loss is not finite in epoch {epoch}, step {step}: {values}.{images} Lower "
        "--model.optimizer.lr, lengthen --model.schedule.warmup_steps or set --trainer.gradient_clip_val. "
        "Checkpoints of earlier epochs are kept; --ckpt_path last resumes from the newest."
    )
