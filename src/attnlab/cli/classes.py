"""Which task and data module a command is for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from attnlab import checkpoints, data, tasks, trust
from attnlab.cli.arguments import Arguments
from attnlab.data import DataModule
from attnlab.errors import AttnlabError, unknown
from attnlab.recipes import as_block
from attnlab.tasks import BaseTask, SegmentationTask

# Options that two classes share but that describe one particular data set.
OF_ONE_SET = ("root", "class_names")
HOMES: dict[str, tuple[ModuleType, type, str]] = {
    "model": (tasks, BaseTask, "task"),
    "data": (data, DataModule, "data module"),
}


def find_class(block: str, name: str) -> type:
    """The class that ``--model`` or ``--data`` names: one of attnlab's by name, any other by import path.

    Args:
        block: ``model`` or ``data``.
        name: The class's name or import path.

    Raises:
        AttnlabError: There is no such class, or it is of the wrong kind.
    """
    home, base, kind = HOMES[block]
    if "." not in name:
        names = [each for each in home.__all__ if issubclass(getattr(home, each), base)]
        if name not in names:
            raise unknown(
                kind, name, set(names) - {base.__name__}, "For a class of your own, give its import path."
            )
        return getattr(home, name)
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise AttnlabError(f"--{block} is '{name}', which cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise AttnlabError(
            f"--{block} is '{name}', which is not a subclass of {base.__module__}.{base.__name__}."
        )
    return found


def path_of(block: str, cls: type) -> str:
    """The shortest import path of a class, which is what is saved."""
    home = HOMES[block][0]
    own = getattr(home, cls.__name__, None) is cls
    return f"{home.__name__ if own else cls.__module__}.{cls.__qualname__}"


def data_for(task: type[BaseTask]) -> list[str]:
    """The names of attnlab's data modules for a task, its default first."""
    own: list[type] = [getattr(data, name) for name in data.__all__]
    own = [cls for cls in own if getattr(cls, "task", None) == task.kind]
    # Base classes are left out.
    last = [cls.__name__ for cls in own if sum(issubclass(other, cls) for other in own) == 1]
    return sorted(last, key=lambda name: (name != task.default_data, name))


def chosen(arguments: Arguments, remembered: Mapping[str, Any]) -> tuple[type[BaseTask], type[DataModule]]:
    """The classes of task and data.

    Flags beat recipes, and these beat the checkpoint. With no task named, it is the data's, or else
    segmentation; with no data named, it is the task's default.

    Args:
        arguments: What was typed.
        remembered: The checkpoint's recipe; empty without one.

    Raises:
        AttnlabError: A class cannot be found, or the checkpoint is of another task.
    """
    named = {block: arguments.class_named(block) for block in HOMES}
    data_named = named["data"] or remembered.get("data", {}).get("class_path")
    data_class = find_class("data", data_named) if data_named else None
    of_checkpoint = remembered.get("model", {}).get("class_path")
    if named["model"] or of_checkpoint:
        task = find_class("model", named["model"] or of_checkpoint)
        if named["model"] and of_checkpoint:
            _refuse_another_task(task, find_class("model", of_checkpoint))
    else:
        kind = getattr(data_class, "task", None)
        builtin = [getattr(tasks, name) for name in tasks.__all__ if isinstance(getattr(tasks, name), type)]
        task = next((t for t in builtin if kind and getattr(t, "kind", None) == kind), SegmentationTask)
    assert issubclass(task, BaseTask)
    if data_class is None:
        if task.default_data is None:
            raise AttnlabError(f"{task.__name__} needs a data module: --data CLASS.")
        data_class = find_class("data", task.default_data)
    return task, data_class


def of_checkpoint(arguments: Arguments, content: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A checkpoint's recipe, as far as its author is trusted.

    Without ``--trust_checkpoint`` it holds only values and known classes (`trust.refuse_strangers`), and
    nothing is fetched for it.

    Args:
        arguments: What was typed. Classes that it names may be named by the checkpoint, too.
        content: The checkpoint's content; empty without one.

    Returns:
        The recipe, and whether the data set may be made or downloaded: not in a folder that only the
        checkpoint names.

    Raises:
        AttnlabError: The checkpoint asks for something else.
    """
    recipe = checkpoints.remembered(content) if content else {}
    for name in checkpoints.FROM_DATA:
        recipe.get("model", {}).get("init_args", {}).pop(name, None)
    if not content or arguments.trusts_checkpoint:
        return recipe, True
    for block, taken in recipe.items():
        # A list is replaced as a whole.
        options: dict[str, Any] = taken["init_args"]
        taken["init_args"] = {
            key: value
            for key, value in options.items()
            if not (isinstance(value, list | tuple) and arguments.gives(block, key))
        }
    classes = {block: trust.classes_of(home, base) for block, (home, base, _) in HOMES.items()}
    for block, known in classes.items():
        if named := arguments.class_named(block):
            own = find_class(block, named)
            known |= {named: own, path_of(block, own): own}
            if default := getattr(own, "default_data", None):
                classes["data"] |= {default: find_class("data", default)}
    recipe = trust.refuse_strangers(recipe, arguments.checkpoint or "", classes, arguments.texts())
    options = recipe.get("data", {}).get("init_args", {})
    for name in checkpoints.FETCHING:
        options.pop(name, None)
    usual = not options.get("root") or options["root"] == _options(
        find_class("data", recipe["data"]["class_path"])
    ).get("root")
    return recipe, usual or arguments.gives("data", "root")


def _refuse_another_task(asked: type, of_checkpoint: type) -> None:
    if not (issubclass(asked, of_checkpoint) or issubclass(of_checkpoint, asked)):
        raise AttnlabError(
            f"The checkpoint was saved by {of_checkpoint.__name__}, but the arguments or the YAML ask for "
            f"{asked.__name__}. Omit --model and --config to take everything from the checkpoint."
        )


def fitted(
    recipe: Mapping[str, Any], classes: Mapping[str, type], source: str
) -> tuple[dict[str, Any], list[str]]:
    """The part of a recipe that applies to the given classes.

    A block is kept if it names the given class or a base of it. From another class, only the shared options
    that do not describe a particular data set are kept.

    Args:
        recipe: In the current format.
        classes: The classes to be built, for ``model`` and ``data``.
        source: The recipe's name, for errors.

    Returns:
        The recipe without class names, and a description of what was left out.

    Raises:
        AttnlabError: A block has keys that do not belong there, or is not one.
    """
    result, left_out = dict(recipe), []
    for block, cls in classes.items():
        content = result.pop(block, {})
        options = content.get("init_args", {})
        if others := ", ".join(sorted(set(content) - {"class_path", "init_args"})):
            raise AttnlabError(f"{block} in {source} takes the keys class_path and init_args, not {others}.")
        name = content.get("class_path")
        if name and not issubclass(cls, old := find_class(block, name)):
            common = next(base for base in cls.__mro__ if issubclass(old, base))
            shared = set(_options(common)) - set(OF_ONE_SET)
            if dropped := sorted(set(options) - shared):
                left_out.append(f"{', '.join(dropped)} of {old.__name__}")
            options = {key: value for key, value in options.items() if key in shared}
        for key, default in _options(cls).items():
            if is_dataclass(default):
                as_block(options.get(key), f"{block}.{key} in {source}")
        if options:
            result[block] = {"init_args": options}
    return result, left_out


def _options(cls: type) -> dict[str, Any]:
    """The options of a class and, where it passes some on, of those above it, with their defaults."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found = {parameter.name: parameter.default for parameter in parameters} | found
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return found
