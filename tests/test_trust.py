"""What a checkpoint may ask for; tests/cli/test_hostile_checkpoints.py has those that may not."""

from __future__ import annotations

import inspect
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest
from torch import nn
from torchvision.transforms import v2

from attnlab import data, recipes, tasks
from attnlab.data import DataModule
from attnlab.errors import AttnlabError
from attnlab.tasks import BaseTask
from attnlab.trust import OWN, TORCHVISION, classes_of, option_kinds, refuse_strangers

CLASSES = {"model": classes_of(tasks, BaseTask), "data": classes_of(data, DataModule)}


def taken(block: str, cls: type, **options: Any) -> dict[str, Any]:
    recipe = {block: {"class_path": cls.__name__, "init_args": options}}
    return refuse_strangers(recipe, "a.ckpt", CLASSES)[block]["init_args"]


@pytest.mark.parametrize("block", CLASSES)
def test_every_default_of_ours_is_taken(block):
    for cls in CLASSES[block].values():
        for name in option_kinds(cls).keys() - {"own", "options", "return"}:
            for base in cls.__mro__:
                parameter = inspect.signature(base).parameters.get(name)
                if parameter is not None and parameter.default is not parameter.empty:
                    default = parameter.default
                    value = asdict(default) if is_dataclass(default) else default
                    assert taken(block, cls, **{name: value}) == {
                        name: list(value) if isinstance(value, tuple) else value
                    }
                    break


def test_every_shipped_recipe_is_taken():
    for name in recipes.shipped():
        blocks = {key: recipes.read_recipe(name).get(key, {}) for key in CLASSES}
        recipe = {key: block for key, block in blocks.items() if "class_path" in block}
        found = refuse_strangers(recipe, name, CLASSES)
        assert found["model"]["init_args"] == recipe["model"]["init_args"], name


def test_the_transforms_exist_and_take_no_code():
    for name in TORCHVISION:
        cls = getattr(v2, name)
        assert issubclass(cls, nn.Module)
        kinds = {key: str(kind) for key, kind in inspect.get_annotations(cls.__init__).items()}
        taking = {key for key, kind in kinds.items() if "Callable" in kind}
        assert taking <= {"transforms"}, name
    for name, home in OWN.items():
        cls = recipes_class(f"{home}.{name}")
        assert issubclass(cls, nn.Module)


def recipes_class(path: str) -> Any:
    from attnlab.prediction import _class

    return _class(data, path)


def test_transforms_by_any_of_their_paths():
    one = {"class_path": "torchvision.transforms.v2._geometry.RandomVerticalFlip", "init_args": {"p": 0.1}}
    (found,) = taken("data", data.ImageFolderDataModule, augment=[one])["augment"]
    assert found == {**one, "class_path": "torchvision.transforms.v2.RandomVerticalFlip"}
    (found,) = taken(
        "data", data.COCODetectionDataModule, augment=["attnlab.data.detection_transforms.RandomHSV"]
    )["augment"]
    assert found["class_path"] == "attnlab.data.detection.transforms.RandomHSV"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"batch_size": "four"}, "data.batch_size"),
        ({"classes": ["cat"]}, "data.classes"),
        ({"augment": [{"class_path": "torchvision.transforms.v2.Pad", "init_args": [1]}]}, "data.augment"),
        ({"augment": [3.5j]}, "data.augment"),
        ({"root": object()}, "data.root"),
    ],
)
def test_the_place_is_named(options, what):
    with pytest.raises(AttnlabError, match=rf"a\.ckpt asks for .* as {what}"):
        taken("data", data.ImageFolderDataModule, **options)


def test_what_the_user_has_named():
    class Mine(DataModule):
        def __init__(self, kind: Unknown = None, **options: Any) -> None:  # type: ignore[name-defined] # noqa: F821
            super().__init__(**options)

    classes = {"model": CLASSES["model"], "data": {"my.Mine": Mine}}
    recipe = {
        "model": {"class_path": "SegmentationTask", "init_args": {"attention": {"name": "my.Gate"}}},
        "data": {"class_path": "my.Mine", "init_args": {"kind": "any", "root": "x"}},
    }
    assert refuse_strangers(recipe, "a.ckpt", classes, {"my.Gate"}) == recipe
    with pytest.raises(AttnlabError, match=r"my\.Gate"):
        refuse_strangers(recipe, "a.ckpt", classes)
    with pytest.raises(AttnlabError, match=r"my\.Mine"):
        refuse_strangers(recipe, "a.ckpt", CLASSES, {"my.Gate"})
