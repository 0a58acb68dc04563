"""Every shipped YAML, through the real command line, on made data and for a few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.cli.conftest import Command, write_class_folders
from tests.data.conftest import write_coco_folder, write_pairs, write_split, write_voc_folder, write_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


OVERLAYS = {"modern": "imagenet_resnet18_ela"}
"""A YAML that is laid over others, and one of those."""
REFERENCES = [path for path in CONFIGS if path.stem.startswith("reference_")]
RECIPES = [path for path in CONFIGS if path.stem not in OVERLAYS and path not in REFERENCES]


def made_data(config: dict, tmp_path: Path) -> list[str]:
    """Options that put small made data, and nothing else, in the place of the recipe's."""
    name = config["data"]["class_path"]
    if name.startswith("Shapes"):
        sizes = ["--data.num_train=12", "--data.num_val=6", "--data.image_size=64"]
        return [f"--data.root={tmp_path / 'shapes'}", *sizes]
    if name == "VOCSegmentationDataModule":
        options = ["--data.download=false", "--data.crop_size=64", "--data.class_names=[ground,leaf]"]
        return [f"--data.root={tmp_path / 'voc'}", *options]
    if name == "COCODetectionDataModule":
        sizes = {f"{k}.jpg": (60 - 3 * k, 70 + 4 * k) for k in range(7)}
        every = [(7, 20, 10, 9, 9), (90, 1, 1, 8, 8)]
        boxes = {name: [(2, 4, 5, 20 + k, 30), *every] for k, name in enumerate(sizes)}
        for split in ("train2017", "val2017"):
            write_coco_folder(tmp_path / "coco", split, sizes, boxes)
        return [f"--data.root={tmp_path / 'coco'}"]
    if name == "VOCDetectionDataModule":
        for year in ("2007", "2012"):
            names = [f"t{k}" for k in range(7)]
            sizes = {name: (60 - 3 * k, 70 + 4 * k) for k, name in enumerate(names)}
            splits = {"trainval": names[:4], "train": names[:4], "val": names[4:], "test": names[4:]}
            boxes = {name: [("cat", 5, 6, 40, 50, 0)] for name in names}
            write_voc_folder(tmp_path / "vocs/VOCdevkit" / f"VOC{year}", sizes, splits, boxes)
        return [f"--data.root={tmp_path / 'vocs'}", "--data.download=false", "--data.class_names=[cat]"]
    if name == "YOLODetectionDataModule":
        root = tmp_path / "yolo"
        for split in ("train", "val"):
            labels = {f"{split}{k}.jpg": "0 0.5 0.5 0.5 0.5\n1 0.3 0.3 0.2 0.4\n" for k in range(4)}
            write_split(root / split / "images", root / split / "labels", labels)
        write_yaml(root / "data.yaml", train="../train/images", val="../val/images", names=["ant", "bee"])
        return [f"--data.root={root}"]
    if name == "MaskFolderDataModule":
        for split in ("train", "val"):
            folders = (tmp_path / "masked" / kind / split for kind in ("images", "masks"))
            write_pairs(*folders, names=[f"{split}{k}" for k in range(4)])
        return [f"--data.root={tmp_path / 'masked'}", "--data.crop_size=64"]
    write_class_folders(tmp_path / "folders", classes=5, train=3, val=2)
    return [f"--data.root={tmp_path / 'folders'}", "--data.crop_size=32"]


def small_network(config: dict) -> list[str]:
    """Options that make a detector small enough for a test; other networks stay as they are."""
    options = (config["model"]["init_args"].get("network_options") or {}).copy()
    if config["model"]["class_path"] != "DetectionTask":
        return []
    if "size" in options:
        return ["--model.network_options.size=64"]
    small = ["--model.network_options.min_size=64", "--model.network_options.max_size=96"]
    # The frozen layers of a network without pretrained weights would let maps grow without bounds.
    return [*small, "--model.network_options.backbone=resnet18", "--model.network_options.frozen_bn=false"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_fit_resume_test_predict(path: Path, run: Command, voc: Path, tmp_path: Path) -> None:
    recipe = path.with_stem(OVERLAYS.get(path.stem, path.stem))
    config = yaml.safe_load(recipe.read_text())
    quick = [
        f"--config={recipe}",
        *([f"--config={path}"] if path != recipe else []),
        *made_data(config, tmp_path),
        *small_network(config),
        "--model.weights=none",
        "--data.num_workers=0",
        "--data.batch_size=3",
        "--trainer.accelerator=cpu",
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=2",
        "--trainer.limit_test_batches=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.enable_progress_bar=false",
    ]
    folder = tmp_path / "lightning_logs" / config["trainer"]["logger"]["init_args"]["name"] / "version_0"
    for epochs in (1, 2):
        resume = ["--ckpt_path=last"] if epochs == 2 else []
        outcome = run("fit", *quick, f"--trainer.max_epochs={epochs}", *resume)
        assert outcome.status == 0, outcome.err
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
    assert (folder / "pictures/val.png").is_file()

    outcome = run("test", *quick, "--ckpt_path=best")
    assert outcome.status == 0, outcome.err
    task = config["model"]["class_path"].removesuffix("Task").lower()
    scores = {"segmentation": "test mIoU", "classification": "test top-1", "detection": "test AP"}
    assert scores[task] in outcome.out
    # Into the run of its checkpoint, beside the curves.
    assert (folder / "scores.json").is_file()
    assert list(folder.glob("events.out.tfevents.*"))
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]

    Image.fromarray(np.zeros((70, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    outcome = run("predict", *quick, "--ckpt_path=last", "--data.predict_images=photo.png")
    assert outcome.status == 0, outcome.err
    if task == "segmentation":
        assert Image.open(tmp_path / "predictions/photo.png").size == (50, 70)
    elif task == "detection":
        written = json.loads((tmp_path / "predictions/predictions.json").read_text())
        assert [image["file_name"] for image in written["images"]] == ["photo.png"]
        assert (tmp_path / "predictions/photo.jpg").is_file()
    else:
        assert "photo.png" in (tmp_path / "predictions/predictions.csv").read_text()


def without_a_comment(text: str) -> list[str]:
    """Keys that nothing explains.

    A comment explains the key on its own line, or those below it up to a blank line or another block; above a
    block it explains what is in the block.
    """
    bare: list[str] = []
    blocks: list[tuple[int, bool]] = []
    explained = below = False
    for line in text.splitlines():
        word = line.strip()
        if not word or word.startswith("#"):
            explained = below = bool(word)
            continue
        depth = len(line) - len(line.lstrip())
        while blocks and blocks[-1][0] >= depth:
            blocks.pop()
        key, colon, value = word.removeprefix("- ").partition(":")
        # The rest of a value that began on a line above has no key of its own.
        if not colon or not key.replace("_", "").replace(".", "").isalnum():
            continue
        inside = bool(blocks) and blocks[-1][1]
        if value.strip():
            if not (explained or inside or "  # " in line or key in EXPLAINED_BY_THEIR_NAME):
                bare.append(key)
        else:
            blocks.append((depth, inside or (below and key not in ROOMS)))
            explained = False
        below = False
    return bare


ROOMS = {"model", "data", "trainer", "init_args"}
"""Blocks of many things: a comment above one says nothing of what is in it."""
EXPLAINED_BY_THEIR_NAME = {"class_path", "logger", "log_every_n_steps", "devices"}


@pytest.mark.parametrize("path", sorted({*CONFIGS} - {*REFERENCES}), ids=lambda path: path.stem)
def test_every_key_of_a_recipe_has_a_comment(path: Path) -> None:
    assert without_a_comment(path.read_text()) == []


def test_what_counts_as_a_comment() -> None:
    text = """
    # Of the room.
    model:
      bare: 1
      own: 1  # Here.
      # Of both.
      one: 1
      two: 1
      block:
        lonely: 1
      # Of the block.
      block:
        inside: 1
        deeper:
          {also: 1,
           inside: 2}
    """
    assert without_a_comment(text) == ["bare", "lonely"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_runs_folder_is_named_after_the_file(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["trainer"]["logger"]["init_args"]["name"] == path.stem


def test_recipes_are_short() -> None:
    # 1,979 lines, when each said again what all have in common.
    assert sum(len(path.read_text().splitlines()) for path in CONFIGS if path not in REFERENCES) <= 880


def leaves(block: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in block.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


FORMER_NAMES = {"predictions.overlays", "predictions.drawings"}
USEFUL_IN_PART = ("trainer.", "checkpoint.")
"""Lightning's own, of whose options a reference has the useful ones."""


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
class TestReferences:
    def test_every_key_has_a_comment_of_its_own_or_shares_one(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        keys = [k for k, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
        values = [k for k in keys if lines[k].partition(":")[2]]
        above = [k for k in values if lines[k - 1].lstrip().startswith("#")]
        assert without_a_comment("\n".join(lines)) == []
        # Three terms of a loss, both of normalisation, and the like are explained together.
        assert len(above) >= 0.85 * len(values)

    def test_it_has_every_option_at_its_default(self, path: Path, run: Command) -> None:
        task = yaml.safe_load(path.read_text())["model"]["class_path"]
        plain = run("fit", f"--model={task}", "--print_config")
        assert plain.status == 0, plain.err
        with_it = run("fit", f"--config={path}", "--print_config")
        assert with_it.out == plain.out, with_it.err
        default = dict(leaves(yaml.safe_load(plain.out)))
        written = dict(leaves(yaml.safe_load(path.read_text())))
        missing = {
            key
            for key in set(default) - set(written) - FORMER_NAMES - {"ckpt_path"}
            if not key.startswith(USEFUL_IN_PART)
        }
        assert missing == set()
        assert set(written) <= set(default)
