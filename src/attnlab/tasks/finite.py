"""The guard of every task's training: a loss that is no number ends it, while the last checkpoint is good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnlab.data.names import listed
from attnlab.errors import AttnlabError


class FiniteLoss:
    """Looks at every training step's loss, on a GPU one step later.

    There, waiting for a number of the step that is just being computed would leave the device idle. What the
    one step in between has done to the weights is never saved: `look_back` comes before every checkpoint.
    """

    def __init__(self) -> None:
        self._last: tuple[torch.cuda.Event, Tensor, Callable[[], str]] | None = None

    def look_at(self, terms: Mapping[str, Tensor], batch: Mapping[str, Any], epoch: int, step: int) -> None:
        """Look at a step's loss, or on a GPU at that of the step before.

        Args:
            terms: The loss's terms by name, with ``"loss"``, each of one number.
            batch: Its images' names are ``name``.
            epoch: Counted from 0.
            step: Optimizer steps before this one.

        Raises:
            AttnlabError: It is infinite or undefined.
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
        """Look at the last step's loss, where that was not done yet.

        Raises:
            AttnlabError: It is infinite or undefined.
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
        f"The loss is no number any more in epoch {epoch}, step {step}: {values}.{images} Lower "
        "--model.optimizer.lr, lengthen --model.schedule.warmup_steps or set --trainer.gradient_clip_val; "
        "checkpoints of earlier epochs are kept, and --ckpt_path last goes on from the newest."
    )
