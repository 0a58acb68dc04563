"""Which task and which data a command is for, from all that names or implies them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from attnlab import data, tasks
from attnlab.cli.arguments import Arguments, class_path
from attnlab.data import DataModule
from attnlab.errors import AttnlabError, unknown
from attnlab.tasks import BaseTask, SegmentationTask

# Of the options that two classes share, those that belong to one set of data.
OF_ONE_SET = ("root", "class_names")
HOMES: dict[str, tuple[ModuleType, type, str]] = {
    "model": (tasks, BaseTask, "task"),
    "data": (data, DataModule, "data module"),
}


def find_class(block: str, name: str) -> type:
    """The class that ``--model`` or ``--data`` names: attnlab's by its name, any by its import path.

    Args:
        block: ``model`` or ``data``.
        name: What was named.

    Raises:
        AttnlabError: There is no such class, or it is of another kind.
    """
    home, base, kind = HOMES[block]
    if "." not in name:
        names = [each for each in home.__all__ if issubclass(getattr(home, each), base)]
        if name not in names:
            raise unknown(
                kind, name, set(names) - {base.__name__}, "One of your own is named by its import path."
            )
        return getattr(home, name)
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise AttnlabError(f"--{block} names '{name}', which cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise AttnlabError(f"--{block} names '{name}', which is not a {base.__module__}.{base.__name__}.")
    return found


def path_of(block: str, cls: type) -> str:
    """The shortest import path of a class, which is what is saved."""
    home = HOMES[block][0]
    own = getattr(home, cls.__name__, None) is cls
    return f"{home.__name__ if own else cls.__module__}.{cls.__qualname__}"


def data_for(task: type[BaseTask]) -> list[str]:
    """The names of attnlab's data modules for a task; its own choice where none is named comes first."""
    own: list[type] = [getattr(data, name) for name in data.__all__]
    own = [cls for cls in own if getattr(cls, "task", None) == task.kind]
    # Not those that are there to be built on.
    last = [cls.__name__ for cls in own if sum(issubclass(other, cls) for other in own) == 1]
    return sorted(last, key=lambda name: (name != task.default_data, name))


def chosen(arguments: Arguments, remembered: Mapping[str, Any]) -> tuple[type[BaseTask], type[DataModule]]:
    """The classes of task and data.

    Flags beat recipes, and these beat the checkpoint. Where nobody names a task, it is that of the data, or
    else segmentation; where nobody names data, those that the task names.

    Args:
        arguments: What was typed.
        remembered: The checkpoint's recipe; empty without one.

    Raises:
        AttnlabError: A class cannot be found, or the checkpoint is of another task.
    """
    named = {block: arguments.class_named(block) for block in HOMES}
    data_named = named["data"] or class_path(remembered.get("data"))
    data_class = find_class("data", data_named) if data_named else None
    of_checkpoint = class_path(remembered.get("model"))
    if named["model"] or of_checkpoint:
        task = find_class("model", named["model"] or str(of_checkpoint))
        if named["model"] and of_checkpoint:
            _refuse_another_task(task, find_class("model", of_checkpoint))
    else:
        kind = getattr(data_class, "task", None)
        builtin = [getattr(tasks, name) for name in tasks.__all__ if isinstance(getattr(tasks, name), type)]
        task = next((t for t in builtin if kind and getattr(t, "kind", None) == kind), SegmentationTask)
    assert issubclass(task, BaseTask)
    if data_class is None:
        if task.default_data is None:
            raise AttnlabError(f"{task.__name__} needs data: name a data module, --data CLASS.")
        data_class = find_class("data", task.default_data)
    return task, data_class


def _refuse_another_task(asked: type, of_checkpoint: type) -> None:
    if not (issubclass(asked, of_checkpoint) or issubclass(of_checkpoint, asked)):
        raise AttnlabError(
            f"The checkpoint is of a {of_checkpoint.__name__}, and the arguments or the YAML ask for a "
            f"{asked.__name__}. Without --model and --config all is taken from the checkpoint."
        )


def fitted(recipe: Mapping[str, Any], classes: Mapping[str, type]) -> tuple[dict[str, Any], list[str]]:
    """A recipe as it applies to other classes than it names.

    What it says of a class stays where the class is the one that is built, or below it. Of another class,
    only options stay that both share and that do not say where one set of data lies.

    Args:
        recipe: In today's form.
        classes: The classes that are built, of ``model`` and ``data``.

    Returns:
        The recipe, without names of classes, and what of it was left out, as text.
    """
    result, left_out = dict(recipe), []
    for block, cls in classes.items():
        content = result.pop(block, None)
        name = class_path(content)
        options = dict(content.get("init_args") or {}) if isinstance(content, dict) else {}
        other = isinstance(content, dict) and set(content) - {"class_path", "init_args"}
        if other:
            raise AttnlabError(
                f"The block {block} has the keys class_path and init_args, not {', '.join(other)}."
            )
        if name and not issubclass(cls, old := find_class(block, name)):
            shared = set(_shared_options(old, cls)) - set(OF_ONE_SET)
            dropped = sorted(set(options) - shared)
            options = {key: value for key, value in options.items() if key in shared}
            if dropped:
                left_out.append(f"{', '.join(dropped)} of {old.__name__}")
        if options:
            result[block] = {"init_args": options}
    return result, left_out


def _shared_options(one: type, other: type) -> Iterator[str]:
    """The options of the nearest class that is above both."""
    common = next(cls for cls in other.__mro__ if issubclass(one, cls))
    for cls in common.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(vars(cls)["__init__"]).parameters
            yield from parameters
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return
