"""Short flags for the blocks of a task: ``--model.attention=cbam --model.attention.reduction=8``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from attnlab.tasks import AttentionConfig, OptimizerConfig, ScheduleConfig

BLOCKS = {
    "model.attention": AttentionConfig,
    "model.optimizer": OptimizerConfig,
    "model.schedule": ScheduleConfig,
}


def expand(argv: Sequence[str]) -> list[str]:
    """Write short flags out.

    ``--model.attention=cbam`` becomes ``--model.attention.name=cbam`` and, since the options of another
    module do not suit this one, an empty ``--model.attention.options``. ``--model.attention.reduction=8``,
    not being a key of the block itself, becomes ``--model.attention.options.reduction=8``. The name goes
    first, wherever it stood.

    Args:
        argv: Arguments as typed.
    """
    arguments = list(argv)
    for block, config in BLOCKS.items():
        arguments = _expand_block(arguments, f"--{block}", {field.name for field in fields(config)})
    return arguments


def _expand_block(arguments: list[str], flag: str, keys: set[str]) -> list[str]:
    result: list[str] = []
    name: list[str] = []
    first: int | None = None
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        key, has_value, value = argument.partition("=")
        if key == flag or key.startswith(f"{flag}."):
            first = len(result) if first is None else first
        if key == flag:
            if not has_value and position < len(arguments):
                value = arguments[position]
                position += 1
            if value.lstrip().startswith("{") or value.endswith((".yaml", ".json")):
                result.append(f"{flag}={value}")
            else:
                name = [f"{flag}.name={value}"] + ([f"{flag}.options={{}}"] if "options" in keys else [])
        elif key.startswith(f"{flag}.") and "options" in keys:
            option = key.removeprefix(f"{flag}.").split(".")[0]
            inside = key if option in keys or option == "help" else f"{flag}.options.{key[len(flag) + 1 :]}"
            result.append(f"{inside}{has_value}{value}")
        else:
            result.append(argument)
    if first is None:
        return result
    return result[:first] + name + result[first:]
