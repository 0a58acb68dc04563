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
        raise AttnlabError(f"The recipe '{path}' is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise AttnlabError(f"The recipe '{path}' has no top-level keys such as model and data.")
    return content


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe by path or name, in the current format: ``model`` and ``data`` have class_path and init_args.

    Raises:
        AttnlabError: It cannot be found or read, or its task is unknown.
    """
    return in_todays_form(read_yaml(find(name)))


def in_todays_form(content: dict[str, Any]) -> dict[str, Any]:
    """A recipe's content in the current format.

    Formerly ``task`` gave the class, and ``model`` held its options directly. An attention or optimizer block
    with a name starts from defaults, so options of earlier recipes do not leak into it.

    Raises:
        AttnlabError: The task is unknown.
    """
    content = dict(content)
    task, model = content.pop("task", None), content.get("model")
    if isinstance(model, dict) and not model.keys() <= CLASS_KEYS and "class_path" not in model:
        model = {"init_args": model}
    if task is not None:
        model = {"class_path": task_named(task), **(model or {})} if not isinstance(model, str) else model
    for name in ("attention", "optimizer"):
        if isinstance(model, dict) and isinstance(model.get("init_args"), dict):
            block = model["init_args"].get(name)
            if isinstance(block, str):
                block = {"name": block}
            if isinstance(block, dict) and "name" in block:
                block = {"options": {}, **block}
            if block is not None:
                model = {**model, "init_args": {**model["init_args"], name: block}}
    return content if model is None else {**content, "model": model}


def task_named(task: object) -> str:
    """The class of a task by its short name.

    Raises:
        AttnlabError: The name is unknown.
    """
    if not isinstance(task, str) or task.lower() not in TASKS:
        raise unknown("task", str(task), TASKS)
    return TASKS[task.lower()]
