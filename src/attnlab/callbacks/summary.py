"""What is about to be trained, said once before it is."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Trainer
from torch import nn

from attnlab.attention import attention_modules, describe
from attnlab.models.cost import Cost, share
from attnlab.tasks import BaseTask

LISTED_SITES = 12


def summary_lines(trainer: Trainer, task: BaseTask, cost: Cost) -> list[str]:
    """The network, its parts and the places of attention, with parameters and multiply-accumulates.

    Args:
        trainer: Says on what it is trained.
        task: The network, attention attached.
        cost: What it costs.
    """
    named = (task.hparams.get(key) for key in ("architecture", "encoder", "network"))
    height, width = cost.size
    parameters = list(task.network.parameters())
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    attention = [p for _, site in attention_modules(task.network) for p in site.new_parameters()]
    of_attention = {id(parameter) for parameter in attention}
    backbone = [p for p in task.backbone_parameters() if id(p) not in of_attention]
    head = count(parameters) - count(backbone) - count(attention)
    rows = [
        ("network", " on ".join(filter(None, named))),
        ("parameters", f"{count(parameters):,d}, of which {count(trainable):,d} are trained"),
        ("", f"backbone {count(backbone):,d}, head {head:,d}, attention {count(attention):,d}"),
        (
            f"MACs at {height}x{width}",
            f"{cost.macs / 1e9:.3f} G, attention {share(cost.attention_macs, cost.macs, 'M', 1e6)}",
        ),
        ("on", f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}"),
        ("layout", _layout(task)),
        (
            "attention",
            f"{task.attention.name} ({task.attention.mode}) at {len(task.sites)} sites"
            if task.sites
            else "none",
        ),
    ]
    lines = [f"{label:<16}{value}".rstrip() for label, value in rows]
    if task.sites:
        lines += describe(task.sites[:LISTED_SITES]).splitlines()
    if len(task.sites) > LISTED_SITES:
        lines.append(f"  … and {len(task.sites) - LISTED_SITES} more")
    return lines


def _layout(task: BaseTask) -> str:
    """The memory format, whose choice it was, and what is compiled."""
    name = str(task.layout).removeprefix("torch.")
    chosen = " (auto)" if task.hparams["channels_last"] == "auto" else ""
    if not task.hparams["compile"]:
        return f"{name}{chosen}"
    whole = task.compiled_part is task.network
    return f"{name}{chosen}, {'the network' if whole else 'the backbone'} compiled"


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers there are in them, each counted once."""
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())
