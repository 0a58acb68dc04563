"""A trained network in one's own code: from a checkpoint and a picture to the result, whatever the task."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from attnlab import checkpoints, data, tasks
from attnlab.data import DataModule
from attnlab.data.folders import find_images
from attnlab.data.images import read_image
from attnlab.errors import AttnlabError
from attnlab.tasks import BaseTask
from attnlab.views.predictions import Prediction

Picture = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor

# Of a checkpoint's data, what is for training alone: a network in use needs none of it.
FOR_TRAINING = ("train_transforms", "augment", "mosaic", "download", "mirror", "predict_images")
TRUSTED = ("attnlab.data.", "torchvision.transforms.v2.")


class Loaded:
    """A trained network with what it needs to be used: `attnlab.load` gives one.

    Attributes:
        task: The LightningModule, in evaluation mode.
        data: The data module, which brings pictures to the form that the network was evaluated in.
    """

    def __init__(self, task: BaseTask, module: DataModule) -> None:
        self.task = task
        self.data = module

    @property
    def network(self) -> nn.Module:
        """The plain network, attention attached."""
        return self.task.network

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …."""
        return list(self.task.class_names)

    def to(self, device: str | torch.device) -> Loaded:
        """Bring the network to a device; returns itself."""
        self.task.to(device)
        self.task.lay_out(self.task.device.type)
        return self

    def predict(self, pictures: Picture | Sequence[Picture]) -> Any:
        """Use the network on pictures, as ``main.py predict`` does, number by number.

        Args:
            pictures: A picture, or a list of them: a file's path, a PIL image, an array (H, W, 3) or (H, W),
                or a tensor (3, H, W), of uint8 or of floats in 0..1. Of any size; a folder or a pattern such
                as ``"shots/*.jpg"`` stands for a list, and so does a tensor (B, 3, H, W).

        Returns:
            A `Prediction` of the task; of a list, a list of them, in its order.

        Raises:
            AttnlabError: A picture cannot be read, or is no picture.
        """
        if isinstance(pictures, Tensor) and pictures.ndim == 4:
            pictures = list(pictures)
        if isinstance(pictures, str | Path) and not Path(pictures).is_file():
            pictures = list(find_images(str(pictures)))
        single = not isinstance(pictures, list | tuple)
        given: Any = [pictures] if single else pictures
        with _as_files(given) as files:
            found = self._predict([path for path, _ in files])
            results = [
                self._result(found[str(path)], read_image(path), path if own else None) for path, own in files
            ]
        return results[0] if single else results

    def _predict(self, paths: list[Path]) -> dict[str, Any]:
        """What the task says of each file, by its path; each is looked at once."""
        self.data.predict_images = list(dict.fromkeys(map(str, paths)))
        self.data.datasets.pop("predict", None)
        self.data.setup("predict")
        training = self.task.training
        found: dict[str, Any] = {}
        try:
            with torch.no_grad():
                self.task.eval()
                for index, batch in enumerate(self.data.predict_dataloader()):
                    moved = self.task.transfer_batch_to_device(batch, self.task.device, 0)
                    moved = self.data.on_after_batch_transfer(moved, 0)
                    output = self.task.predict_step(moved, index)
                    found |= zip(map(str, batch["path"]), output, strict=True)
        finally:
            self.task.train(training)
        return found

    def _result(self, found: Any, image: Tensor, path: Path | None) -> Prediction:
        return self.task.view.prediction(found, image, path, self.data)


def load(checkpoint: str | Path, device: str | torch.device = "cpu", trust: bool = False) -> Loaded:
    """Load a trained network from a checkpoint of any task.

    The checkpoint says which network it is of, which classes there are and how pictures are brought to size;
    neither a YAML nor a data set is needed, and nothing is downloaded.

    Args:
        checkpoint: A ``.ckpt`` file that ``fit`` has written.
        device: Where the network goes.
        trust: Let the checkpoint name classes that are neither attnlab's nor transforms of torchvision: an
            attention module or a data module of your own. Importing them runs their code.

    Returns:
        The network, to be asked with ``predict``.

    Raises:
        AttnlabError: The file is missing, cut short or no checkpoint of attnlab, or names code that is not
            trusted.

    Examples:
        >>> net = attnlab.load("lightning_logs/x/version_0/checkpoints/best.ckpt")
        >>> net.predict("photo.jpg").save("out.png")
    """
    path = checkpoints.resolve_file(Path(checkpoint))
    content = checkpoints.read(path)
    recipe = checkpoints.remembered(content)
    options = recipe["model"]["init_args"]
    attention = options.get("attention", {}).get("name", "none")
    if "." in attention and not trust:
        raise _not_trusted(path, attention)
    task = _class(path, tasks, recipe["model"]["class_path"], trust)(**options)
    assert isinstance(task, BaseTask)
    task.restored = True
    task.on_load_checkpoint(content)
    task.load_state_dict(content["state_dict"])
    module = _data_of(path, recipe.get("data") or {"class_path": task.default_data}, trust)
    return Loaded(task.eval(), module).to(device)


def _data_of(path: Path, block: Mapping[str, Any], trust: bool) -> DataModule:
    """The data module that a checkpoint names, for prediction alone."""
    cls = _class(path, data, str(block["class_path"]), trust)
    options = {k: v for k, v in (block.get("init_args") or {}).items() if k not in FOR_TRAINING}
    if options.get("eval_transforms"):
        options["eval_transforms"] = [_transform(path, each, trust) for each in options["eval_transforms"]]
    if options.get("on_bad_image"):
        options["on_bad_image"] = "error"
    options["num_workers"] = 0
    module = cls(**options)
    assert isinstance(module, DataModule)
    return module


def _class(path: Path, home: ModuleType, class_path: str, trust: bool) -> type:
    """A class that a checkpoint names: attnlab's own, or any where its code is trusted."""
    name = class_path.rpartition(".")[2]
    if class_path.startswith(f"{home.__name__}.") and name in home.__all__:
        return getattr(home, name)
    if not trust:
        raise _not_trusted(path, class_path)
    return _imported(class_path)


def _transform(path: Path, block: Any, trust: bool) -> nn.Module:
    class_path = block.get("class_path", "") if isinstance(block, Mapping) else str(block)
    options = block.get("init_args") or {} if isinstance(block, Mapping) else {}
    plain = all(isinstance(value, bool | int | float | str | list | None) for value in options.values())
    named = class_path.startswith(TRUSTED) and not class_path.endswith(".Lambda")
    if not (named and plain) and not trust:
        raise _not_trusted(path, class_path)
    module = _imported(class_path)(**options)
    if not isinstance(module, nn.Module):
        raise AttnlabError(f"{path} names {class_path} as a transform, which is none.")
    return module


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise AttnlabError(f"Cannot import '{class_path}', which the checkpoint names: {error}.") from error


def _not_trusted(path: Path, what: str) -> AttnlabError:
    return AttnlabError(
        f"{path} names '{what}', which is not attnlab's: loading it would run that code. If you know whose "
        "it is: attnlab.load(..., trust=True)."
    )


@contextmanager
def _as_files(pictures: Sequence[Picture]) -> Iterator[list[tuple[Path, bool]]]:
    """Each picture's file, and whether it is one's own: what was handed over is written without loss."""
    with tempfile.TemporaryDirectory(prefix="attnlab-") as folder:
        files = []
        for number, picture in enumerate(pictures):
            if isinstance(picture, str | Path):
                files.append((Path(picture), True))
                continue
            path = Path(folder) / f"{number}.png"
            _image(picture, number).save(path, compress_level=1)
            files.append((path, False))
        yield files


def _image(picture: Any, number: int) -> Image.Image:
    """A PIL image of a picture that is held in memory."""
    if isinstance(picture, Image.Image):
        # A PNG has no other modes; read_image knows these.
        fits = picture.mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
        return picture if fits else picture.convert("RGB")
    values = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    if isinstance(picture, Tensor) and values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.transpose(1, 2, 0)
    if not isinstance(values, np.ndarray):
        raise AttnlabError(
            f"Picture {number} is a {type(picture).__name__}: give a path, a PIL image, an array or a tensor."
        )
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        raise AttnlabError(
            f"Picture {number} has the shape {tuple(picture.shape)}: arrays are (H, W, 3) or (H, W), tensors "
            "(3, H, W)."
        )
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise AttnlabError(
                f"Picture {number} holds floats from {values.min():g} to {values.max():g}: they must lie in "
                "0..1, not normalised; whole numbers in 0..255 are uint8."
            )
        values = (values * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        raise AttnlabError(f"Picture {number} is of {values.dtype}: pictures are uint8, or floats in 0..1.")
    return Image.fromarray(np.ascontiguousarray(values))
