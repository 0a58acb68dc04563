"""What is not finite: losses and weights end training, outputs of single images are counted and named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric

from attnlab.data.names import listed
from attnlab.errors import AttnlabError

REMEDY = (
    "Lower --model.optimizer.lr, lengthen --model.schedule.warmup_steps or set "
    "--trainer.gradient_clip_val. Checkpoints of earlier epochs are kept; --ckpt_path last resumes from the "
    "newest."
)
"""Advice at the end of each message about training that has diverged."""


class FiniteLoss:
    """Checks every training step's loss, on a GPU one step later.

    On a GPU, waiting for the current step's loss would leave the device idle. The update made in between is
    never saved: `look_back` comes before every checkpoint.

    Processes that train together all raise at the same step, whichever has the loss: one that left alone
    would keep the others waiting for its gradients.

    Attributes:
        processes: Number of processes that train together.
    """

    def __init__(self) -> None:
        self.processes = 1
        self._last: tuple[torch.cuda.Event | None, Tensor, Callable[[], str], bool] | None = None

    def look_at(
        self,
        terms: Mapping[str, Tensor],
        batch: Mapping[str, Any],
        epoch: int,
        step: int,
    ) -> None:
        """Check a step's loss, or on a GPU that of the step before.

        Args:
            terms: The loss terms by name, including ``"loss"``; scalars.
            batch: The batch; its ``name`` holds the images' names.
            epoch: The epoch, counted from 0.
            step: Optimizer steps before this one.

        Raises:
            AttnlabError: The loss is not finite, on this process or another.
        """
        self.look_back()
        kept = {name: term.detach() for name, term in terms.items()}
        names = [str(name) for name in batch.get("name", [])]
        words = partial(_words, kept, names, epoch, step)
        own = (~torch.isfinite(kept["loss"])).any().to(torch.uint8)
        together = self.processes > 1 and dist.is_available() and dist.is_initialized()
        flags = torch.stack([own, own])
        if together:
            # Waits for nobody on the host: on a GPU it is queued like the gradients' own reduction.
            dist.all_reduce(flags[1], op=dist.ReduceOp.MAX)
        copied = None
        if flags.device.type == "cuda":
            flags = flags.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._last = copied, flags, words, together
        if copied is None:
            self.look_back()

    def look_back(self) -> None:
        """Check the last step's loss, unless that was done.

        Raises:
            AttnlabError: The loss is not finite, on this process or another.
        """
        last, self._last = self._last, None
        if last is None:
            return
        copied, flags, words, together = last
        if copied is not None:
            copied.synchronize()
        own, anywhere = flags.tolist()
        if anywhere:
            texts = [words() if own else None]
            raise AttnlabError(next(text for text in (_of_all(texts) if together else texts) if text))


def _words(terms: Mapping[str, Tensor], names: list[str], epoch: int, step: int) -> str:
    parts = {name: term for name, term in terms.items() if name != "loss"} or terms
    values = ", ".join(f"{name} {float(term):g}" for name, term in parts.items())
    images = f" Images of the batch: {listed(names, 16)}." if names else ""
    return f"The loss is not finite in epoch {epoch}, step {step}: {values}.{images} {REMEDY}"


def broken_weights(task: nn.Module, state: Mapping[str, Any]) -> str | None:
    """What is not finite in a state dict of the task, as text; None if all is well.

    Parameters and BatchNorm's statistics must be finite. Other buffers may be infinite, as the masks of some
    networks are, but not NaN.
    """
    variables = task.state_dict(keep_vars=True)
    names, flags = [], []
    for name, value in state.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            continue
        constant = not isinstance(variables.get(name), nn.Parameter) and not name.endswith(_STATISTICS)
        names.append(name)
        flags.append(~value.isnan().any() if constant else value.isfinite().all())
    # One transfer from the device for all.
    whole = torch.stack(flags).tolist() if flags else []
    broken = [name for name, fine in zip(names, whole, strict=True) if not fine]
    if not broken:
        return None
    return f"{len(broken)} of {len(names)} tensors hold NaN or infinite values ({listed(broken, 2)})"


_STATISTICS = ("running_mean", "running_var")


def refuse_to_save(task: Any, state: Mapping[str, Any]) -> None:
    """Reject weights that are not finite before they take the place of good ones in a checkpoint.

    Every process must call it. All of them raise if one has broken weights, since each has its own
    BatchNorm statistics.

    Args:
        task: The task with its Trainer.
        state: The state dict to be saved.

    Raises:
        AttnlabError: They are not finite, on this process or another.
    """
    trainer, broken = task.trainer, broken_weights(task, state)
    if trainer.strategy.reduce_boolean_decision(broken is not None, all=False):
        raise AttnlabError(
            f"The weights are not finite after epoch {trainer.current_epoch}, step {trainer.global_step}: "
            f"{broken or 'those of another process'}. They are not saved. {REMEDY}"
        )


def refuse_to_load(task: nn.Module, state: Mapping[str, Any]) -> None:
    """Reject a checkpoint whose weights are not finite.

    Args:
        task: The task it is loaded into.
        state: The checkpoint's state dict.

    Raises:
        AttnlabError: They are not finite.
    """
    broken = broken_weights(task, state)
    if broken is not None:
        raise AttnlabError(
            f"The checkpoint's weights are not finite: {broken}. Its training had diverged, so it predicts "
            "nothing. Use an earlier checkpoint (--ckpt_path FILE), or train again with a lower learning "
            "rate."
        )


class MeanLoss(MeanMetric):
    """The mean of a stage's losses, which is NaN or infinite if one of them is.

    torchmetrics leaves NaNs out of a mean, or else its weights.
    """

    def update(self, value: float | Tensor, weight: float | Tensor | None = None) -> None:
        """Add a loss.

        Args:
            value: The loss, a scalar.
            weight: Its weight, at least 0; a loss of weight 0 does not count. None means 1.
        """
        value, share = (
            torch.as_tensor(number, dtype=self.dtype, device=self.device)
            for number in (value, 1.0 if weight is None else weight)
        )
        self.mean_value += torch.where(share > 0, value * share, 0)
        self.weight += share


class OutputWatch:
    """Counts and names the images for which the network's output is not finite."""

    def __init__(self) -> None:
        self._noted: list[tuple[Tensor, list[str | None]]] = []

    def reset(self) -> None:
        """Forget what was noted."""
        self._noted = []

    def note(self, broken: Tensor | Sequence[bool], names: Iterable[str | None]) -> None:
        """Note a batch.

        Args:
            broken: bool (B,), the images whose output is not finite. On a GPU, nobody waits for it here.
            names: Their names, or files; None for an image that does not count.
        """
        self._noted.append((torch.as_tensor(broken), list(names)))

    def result(self, together: bool = False) -> tuple[list[str], int]:
        """The names of the broken images, and the number of all images; then forgets them.

        Args:
            together: Of all processes, each of which must call this.
        """
        found: list[str] = []
        images = 0
        for broken, names in self._noted:
            for name, bad in zip(names, torch.as_tensor(broken).tolist(), strict=True):
                if name is not None:
                    images += 1
                    found += [name] if bad else []
        self.reset()
        shares = [(found, images)]
        if together and dist.is_available() and dist.is_initialized():
            shares = _of_all(shares)
        return [name for share, _ in shares for name in share], sum(count for _, count in shares)


def said_of_outputs(broken: Sequence[str], images: int, what: str, then: str) -> str:
    """The warning about images whose output is not finite.

    Args:
        broken: Their names.
        images: The number of all images.
        what: Of which images, such as ``"'val' images"``.
        then: What becomes of them.
    """
    return (
        f"The network's output is NaN or infinite for {len(broken)} of {images} {what} "
        f"({listed(broken, 5)}): {then}."
    )


def _of_all(mine: list[Any]) -> list[Any]:
    """The items of all processes, by rank, one each."""
    items: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(items, mine[0])
    return items
