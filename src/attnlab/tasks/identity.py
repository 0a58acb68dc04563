"""Is this checkpoint one of this network?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lightning.pytorch import LightningModule

from attnlab.errors import AttnlabError

# What makes a network another one even where every tensor fits: same keys, other function or meaning.
IDENTITY = (
    "architecture",
    "encoder",
    "architecture_options",
    "network",
    "network_options",
    "stem_stride",
    "class_names",
    "ignore_index",
)


def refuse_another_network(task: LightningModule, checkpoint: Mapping[str, Any]) -> None:
    """Compare a checkpoint with the network it is about to be loaded into.

    Args:
        task: The network as built now.
        checkpoint: As saved by a Trainer.

    Raises:
        AttnlabError: When they differ in architecture, attention, classes, or in any tensor's name or shape.
    """
    free: frozenset[str] = getattr(task, "free_options", frozenset())
    differences = _option_differences(dict(task.hparams), checkpoint.get("hyper_parameters", {}), free)
    tensors = _tensor_differences(task.state_dict(), checkpoint.get("state_dict", {}))
    if differences or tensors:
        raise AttnlabError(
            "The checkpoint is of another network. "
            + "; ".join([*differences, *tensors])
            + ". Leave --config and --model.* away to build the network from the checkpoint itself, "
            "or give the options it was trained with."
        )


def _option_differences(
    here: Mapping[str, Any], there: Mapping[str, Any], free: Collection[str]
) -> list[str]:
    pairs = {
        key: (_without(here.get(key), free), _without(there.get(key), free))
        for key in IDENTITY
        if key in here and key in there
    }
    for key in ("name", "mode", "shared", "options"):
        if "attention" in here and "attention" in there:
            pairs[f"attention.{key}"] = (here["attention"].get(key), there["attention"].get(key))
    if pairs.get("attention.name") == ("none", "none"):
        pairs = {key: value for key, value in pairs.items() if not key.startswith("attention.")}
    return [
        f"{key}: {ours!r} here, {theirs!r} in the checkpoint"
        for key, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _without(value: Any, free: Collection[str]) -> Any:
    return {k: v for k, v in value.items() if k not in free} if isinstance(value, Mapping) else value


def _tensor_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    groups = {
        "only here": [key for key in here if key not in there],
        "only in the checkpoint": [key for key in there if key not in here],
        "of another shape": [
            f"{key} {tuple(here[key].shape)} here, {tuple(there[key].shape)} there"
            for key in here
            if key in there and here[key].shape != there[key].shape
        ],
    }
    return [
        f"{len(keys)} tensors {what} ({keys[0]}{', …' if len(keys) > 1 else ''})"
        for what, keys in groups.items()
        if keys
    ]
