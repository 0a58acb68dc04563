"""Recipes: YAML files of runs, found by path or name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from attnlab.errors import AttnlabError, unknown

# Classes of the short task names, for `--task` and for recipes from before tasks were classes.
TASKS = {
    "classification": "ClassificationTask",
    "detection": "DetectionTask",
    "segmentation": "SegmentationTask",
}
CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}


def shipped() -> dict[str, Path]:
    """The recipes shipped with attnlab, by name."""
    package = Path(__file__).parent
    # In a wheel they are in the package; in a clone, in configs/.
    folder = package / "configs" if (package / "configs").is_dir() else package.parents[1] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a recipe, given by path or by the name of a shipped one.

    Args:
        name: ``my/own.yaml``, ``quickstart_segmentation``, or ``configs/quickstart_segmentation.yaml`` even
            without such a file.

    Raises:
        AttnlabError: There is no such recipe.
    """
    path, known = Path(name), shipped()
    if path.is_file():
        return path
    bare = path.parent in (Path(), Path("configs")) and path.suffix in ("", ".yaml")
    if bare and path.stem in known:
        return known[path.stem]
    if bare and path.suffix == "" and not path.exists():
        raise unknown("configuration", name, known, "Or give the path of a YAML file.")
    return path


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The content of a recipe, possibly empty.

    Raises:
        AttnlabError: The file cannot be read, is not YAML, or has no top-level keys.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AttnlabError(f"Cannot read the recipe '{path}': {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AttnlabError(f"The recipe '{path}' is not valid YAML: {in_one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise AttnlabError(f"The recipe '{path}' has no top-level keys such as model and data.")
    return content


def in_one_line(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """A parser's message without its line breaks."""
    return " ".join(str(error).split())


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe by path or name, in the current format: ``model`` and ``data`` have class_path and init_args.

    Raises:
        AttnlabError: It cannot be found or read, or its task is unknown.
    """
    return in_todays_form(read_yaml(find(name)), name)


def in_todays_form(content: dict[str, Any], source: str) -> dict[str, Any]:
    """A recipe's content in the current format, its blocks checked.

    Formerly ``task`` gave the class, and ``model`` held its options directly. An attention or optimizer block
    with a name starts from defaults, so options of earlier recipes do not leak into it.

    Args:
        content: As read.
        source: The recipe's name, for errors.

    Raises:
        AttnlabError: The task is unknown, or a block is not one.
    """
    content = dict(content)
    model = content.get("model")
    if isinstance(model, dict) and "class_path" not in model and not model.keys() <= CLASS_KEYS:
        content["model"] = {"init_args": model}
    for key in ("model", "data"):
        if key in content:
            content[key] = _of_class(content[key], f"{key} in {source}")
    if (task := content.pop("task", None)) is not None:
        content["model"] = {"class_path": task_named(task), **content.get("model", {})}
    as_block(content.get("trainer"), f"trainer in {source}")
    if not isinstance(path := content.get("ckpt_path") or "", str):
        raise AttnlabError(f"ckpt_path in {source} must be last, best or a file, got {path!r}.")
    if isinstance(content.get("checkpoint"), dict):
        # A former option: when the best is saved follows from its score.
        kept = {key: item for key, item in content["checkpoint"].items() if key != "save_on_train_epoch_end"}
        content["checkpoint"] = kept
    options = content.get("model", {}).get("init_args", {})
    for name in ("attention", "optimizer"):
        block = {"name": options[name]} if isinstance(options.get(name), str) else options.get(name)
        if isinstance(block, dict) and "name" in block:
            options = options | {name: {"options": {}, **block}}
    if options:
        content["model"] = {**content["model"], "init_args": options}
    return content


def as_block(value: Any, where: str) -> dict[str, Any]:
    """A block of a recipe, empty if it is missing.

    Raises:
        AttnlabError: It is another kind of value, which the parser would ignore.
    """
    if not isinstance(value, dict | None):
        raise AttnlabError(f"{where} must be a block of keys, got {value!r}.")
    return value or {}


def _of_class(value: Any, where: str) -> dict[str, Any]:
    """A block of ``class_path`` and ``init_args``, of which a word alone is the former."""
    block = {"class_path": value} if isinstance(value, str) else as_block(value, where)
    if not isinstance(block.get("class_path") or "", str):
        raise AttnlabError(f"class_path of {where} must be a class's name, got {block['class_path']!r}.")
    as_block(block.get("init_args"), f"init_args of {where}")
    return {key: item for key, item in block.items() if item is not None}


def task_named(task: object) -> str:
    """The class of a task by its short name.

    Raises:
        AttnlabError: The name is unknown.
    """
    if not isinstance(task, str) or task.lower() not in TASKS:
        raise unknown("task", str(task), TASKS)
    return TASKS[task.lower()]
