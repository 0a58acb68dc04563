"""Checks that a checkpoint belongs to the network it is loaded into."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.errors import AttnlabError
from attnlab.tasks.network import NetworkModule

# The meaning of classes and pixels: same tensors, other interpretation.
MEANING = ("class_names", "ignore_index")
# What may make it another network even if every tensor fits.
FUNCTION = ("architecture", "encoder", "architecture_options", "network", "network_options", "stem_stride")
ATTENTION = ("name", "at", "mode", "shared", "options")
# How the same function is computed.
FREE_ATTENTION_OPTIONS = frozenset({"implementation"})
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def refuse_another_network(task: NetworkModule, checkpoint: Mapping[str, Any]) -> None:
    """Compare a checkpoint with the network it is about to be loaded into.

    Options may differ if they build the same modules: a default written out, or another spelling of a name.

    Args:
        task: The task with its network, as built now.
        checkpoint: The checkpoint's content.

    Raises:
        AttnlabError: They differ in architecture, attention, classes, or any tensor's name or shape.
    """
    saved = checkpoint.get("hyper_parameters", {})
    differences = _differences(task, saved, MEANING)
    tensors = _tensor_differences(task.state_dict(), checkpoint.get("state_dict", {}))
    options = _differences(task, saved, (*FUNCTION, *(f"attention.{key}" for key in ATTENTION)))
    if options and (tensors or not _builds_the_same(task, saved)):
        differences += options
    if differences or tensors:
        raise AttnlabError(
            "The checkpoint is for another network. "
            + "; ".join([*differences, *tensors])
            + ". Omit --config and --model.* to build the network from the checkpoint, or give the "
            "options it was trained with."
        )


def _differences(task: NetworkModule, saved: Mapping[str, Any], keys: Collection[str]) -> list[str]:
    """Those of the named options that both have and that differ, free ones left out."""
    free = task.built.free_options | FREE_ATTENTION_OPTIONS
    here, there = (
        {
            name: _with_free(value, {}, free)
            for name, value in (
                *options.items(),
                *((f"attention.{key}", value) for key, value in options.get("attention", {}).items()),
            )
        }
        for options in (task.hparams, saved)
    )
    return [
        f"{key}: {here[key]!r} here, {there[key]!r} in the checkpoint"
        for key in keys
        if key in here and key in there and here[key] != there[key]
    ]


def _with_free(options: Any, others: Any, free: Collection[str]) -> Any:
    """A value with the free options replaced by those of another; anything but a dict is returned as is."""
    if not isinstance(options, Mapping):
        return options
    kept = {key: value for key, value in options.items() if key not in free}
    return kept | {key: value for key, value in (others or {}).items() if key in free}


def _builds_the_same(task: NetworkModule, saved: Mapping[str, Any]) -> bool:
    """Whether the checkpoint's options, free ones aside, build the same modules as this task's."""
    here, free = dict(task.hparams), task.built.free_options
    names = [name for name in FUNCTION if name in here and name in saved]
    there = here | {name: _with_free(saved[name], here[name], free) for name in names}
    if "attention" in saved and "attention" in here:
        theirs, ours = saved["attention"], here["attention"]
        options = _with_free(theirs.get("options", {}), ours["options"], FREE_ATTENTION_OPTIONS)
        there["attention"] = {**ours, **theirs, "options": options}
    with torch.random.fork_rng(devices=[]):
        try:
            first, second = (_modules(type(task)(**options).network) for options in (here, there))
        except (AttnlabError, TypeError):  # options that no longer exist, also in a user's own task
            return False
    return first == second


def _modules(network: nn.Module) -> list[Any]:
    """Class and attributes of each module of a new network, without parameter values."""
    numbers: dict[nn.Module, int] = {}
    found: list[Any] = []
    for name, module in network.named_modules(remove_duplicate=False):
        held = {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        if module is network:  # libraries note there which options it was built with
            held = {key: value for key, value in held.items() if not isinstance(value, Mapping)}
        buffers = dict(module.named_buffers(recurse=False))
        found.append(
            (name, numbers.setdefault(module, len(numbers)), type(module), _by_value([held, buffers]))
        )
    return found


def _by_value(value: Any, levels: int = 8) -> Any:
    """A value that compares equal if both objects were made in the same way."""
    if levels == 0 or isinstance(value, nn.Module):
        return type(value)
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _by_value(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_by_value(item, levels - 1) for item in value]
    if isinstance(value, partial):
        return _by_value([value.func, value.args, value.keywords], levels - 1)
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__module__, value.__qualname__, _by_value([held, value.__defaults__], levels - 1)]
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return [type(value), _by_value(vars(value), levels - 1)]
    return value


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
