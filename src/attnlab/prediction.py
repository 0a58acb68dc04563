"""Using a trained network in your own code, for any task."""

from __future__ import annotations

import tempfile
import warnings
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
from attnlab.tasks.finite import said_of_outputs
from attnlab.views.predictions import Prediction

Picture = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor

# Data options of a checkpoint that only training needs.
FOR_TRAINING = ("train_transforms", "augment", "mosaic", "download", "mirror", "predict_images")
TRUSTED = ("attnlab.data.", "torchvision.transforms.v2.")


class Loaded:
    """A trained network ready for prediction, as returned by `attnlab.load`.

    Attributes:
        task: The LightningModule, in evaluation mode.
        data: The data module, which preprocesses images as in evaluation.
    """

    def __init__(self, task: BaseTask, module: DataModule) -> None:
        self.task = task
        self.data = module

    @property
    def network(self) -> nn.Module:
        """The network with attention."""
        return self.task.network

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …."""
        return list(self.task.class_names)

    def to(self, device: str | torch.device) -> Loaded:
        """Move the network to a device; returns itself."""
        self.task.to(device)
        self.task.lay_out(self.task.device.type)
        return self

    def predict(self, pictures: Picture | Sequence[Picture]) -> Any:
        """Predict on images, with the same results as ``main.py predict``.

        Args:
            pictures: An image of any size or a list of them: a file path, a PIL image, an array (H, W, 3) or
                (H, W), or a tensor (3, H, W), of uint8 or of floats in 0..1. A folder, a pattern such as
                ``"shots/*.jpg"`` or a tensor (B, 3, H, W) counts as a list.

        Returns:
            A `Prediction` of the task; for a list, a list of them in its order.

        Raises:
            AttnlabError: An image cannot be read, or is not an image.
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
                self._result(
                    found[str(path)],
                    read_image(path, max_pixels=self.data.max_pixels),
                    path if own else None,
                )
                for path, own in files
            ]
        return results[0] if single else results

    def _predict(self, paths: list[Path]) -> dict[str, Any]:
        """The predictions by file path; each file is used once."""
        self.data.predict_images = list(dict.fromkeys(map(str, paths)))
        self.data.datasets.pop("predict", None)
        self.data.setup("predict")
        self.task.outputs.reset()
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
        broken, images = self.task.outputs.result()
        if broken:
            warnings.warn(
                said_of_outputs(broken, images, "images", "their predictions are left empty"), stacklevel=3
            )
        return found

    def _result(self, found: Any, image: Tensor, path: Path | None) -> Prediction:
        return self.task.view.prediction(found, image, path, self.data)


def load(checkpoint: str | Path, device: str | torch.device = "cpu", trust: bool = False) -> Loaded:
    """Load a trained network from a checkpoint of any task.

    The checkpoint holds the network's options, the classes and the preprocessing; neither a YAML nor a data
    set is needed, and nothing is downloaded.

    Args:
        checkpoint: A ``.ckpt`` file written by ``fit``.
        device: The network's device.
        trust: Allow classes that are neither attnlab's nor torchvision transforms, such as your own attention
            or data module. Importing them runs their code.

    Returns:
        The network, for use with ``predict``.

    Raises:
        AttnlabError: The file is missing, truncated or not an attnlab checkpoint, or names code that is not
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
    """A checkpoint's data module, for prediction only."""
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
    """A class named in a checkpoint: attnlab's own, or any if trusted."""
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
        raise AttnlabError(f"{path} uses {class_path} as a transform, but it is not one.")
    return module


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise AttnlabError(f"Cannot import '{class_path}', which the checkpoint needs: {error}.") from error


def _not_trusted(path: Path, what: str) -> AttnlabError:
    return AttnlabError(
        f"{path} uses '{what}', which is not part of attnlab: loading it would run its code. If you trust "
        "it, use attnlab.load(..., trust=True)."
    )


@contextmanager
def _as_files(pictures: Sequence[Picture]) -> Iterator[list[tuple[Path, bool]]]:
    """Each image's file, and whether it is the user's; images given in memory are saved losslessly."""
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
    """An image in memory as a PIL image."""
    if isinstance(picture, Image.Image):
        # PNG has no other modes; read_image handles these.
        fits = picture.mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
        return picture if fits else picture.convert("RGB")
    values = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    if isinstance(picture, Tensor) and values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.transpose(1, 2, 0)
    if not isinstance(values, np.ndarray):
        raise AttnlabError(
            f"Image {number} is a {type(picture).__name__}: give a path, a PIL image, an array or a tensor."
        )
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        raise AttnlabError(
            f"Image {number} has the shape {tuple(picture.shape)}: arrays must be (H, W, 3) or (H, W), "
            "tensors (3, H, W)."
        )
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise AttnlabError(
                f"Image {number} has floats from {values.min():g} to {values.max():g}: floats must be in "
                "0..1 and not normalised; for 0..255 use uint8."
            )
        values = (values * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        raise AttnlabError(
            f"Image {number} has dtype {values.dtype}: images must be uint8, or floats in 0..1."
        )
    return Image.fromarray(np.ascontiguousarray(values))
