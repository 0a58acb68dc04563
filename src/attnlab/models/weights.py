"""Pretrained backbone weights: from the encoder's library or from a file, and a report of what fitted."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.errors import AttnlabError

# What a classifier has and a backbone has not; anything else left over in a file is an error.
CLASSIFIER_PREFIXES = ("classifier.", "fc.", "head.", "heads.", "last_linear.", "conv_head.", "global_pool.")
YOLOX_FILES = (
    "COCO-trained YOLOX weights are files of two releases on GitHub: "
    "https://github.com/bubbliiiing/yolox-pytorch/releases/tag/v1.0, of the PyTorch port (yolox_nano.pth and "
    "the other sizes), and https://github.com/Megvii-BaseDetection/YOLOX/releases/tag/0.1.1rc0, of YOLOX's "
    "authors, which needs --model.network_options.pixels bgr255."
)


@dataclass(frozen=True)
class WeightsReport:
    """What a load did.

    Attributes:
        source: File or library the weights came from.
        loaded: How many tensors were taken over.
        new: Keys that keep their initial values (those of attention modules).
        unused: Keys of the source that have no place here: its classifier, or stages that are not used.
    """

    source: str
    loaded: int
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"Backbone weights from {self.source}: {self.loaded} tensors loaded, {len(self.new)} of "
            f"attention modules start anew, {len(self.unused)} of parts that are not used here left out."
        )


def library_encoder_weights(encoder: str, weights: str = "imagenet", depth: int = 5) -> dict[str, Tensor]:
    """State dict of an encoder as its library publishes it; downloads it where it is not cached.

    Args:
        encoder: Name of an encoder of segmentation-models-pytorch.
        weights: Name of the weights there.
        depth: Number of stages of the encoder.

    Raises:
        AttnlabError: When there are no such weights, or they cannot be fetched.
    """
    import segmentation_models_pytorch as smp

    try:
        network = smp.encoders.get_encoder(
            encoder, weights=True if encoder.startswith("tu-") else weights, depth=depth
        )
    except KeyError as error:
        raise AttnlabError(f"No '{weights}' weights for encoder '{encoder}': {error.args[0]}") from error
    except (OSError, RuntimeError) as error:
        # The hub clients raise their own kinds of both when offline; their text says which host.
        raise AttnlabError(
            f"Could not fetch the '{weights}' weights of encoder '{encoder}': {first_line(error)} "
            "With no connection, pass a file instead: --model.weights FILE (a torch state dict or "
            "safetensors with the encoder's keys), or --model.weights none to train from scratch."
        ) from error
    return dict(network.state_dict())


def weights_file(path: str | Path) -> Path:
    """The path of a weights file that is there.

    Raises:
        AttnlabError: When it is not; the message says where files of that name come from, if that is known.
    """
    path = Path(path)
    if not path.is_file():
        where = f" {YOLOX_FILES}" if path.name.lower().startswith("yolox") else ""
        raise AttnlabError(
            f"Weights file not found: {path}. --model.weights takes none, imagenet or a file's path.{where}"
        )
    return path


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a weights file: a torch state dict, a checkpoint that holds one, or safetensors.

    Args:
        path: The file. It is read with ``weights_only=True``: no code in it is run.

    Raises:
        AttnlabError: When it is missing, cannot be read, or holds no tensors.
    """
    path = weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise AttnlabError(f"Cannot read weights from {path}: {first_line(error)}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise AttnlabError(f"Cannot read weights from {path}: {first_line(error)}") from error
    for key in ("state_dict", "model", "model_state"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    )
    if not tensors:
        raise AttnlabError(f"{path} holds no tensors by name; a state dict was expected.")
    return tensors


def load_backbone(
    backbone: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    new: Collection[str] = frozenset(),
    dropped: Collection[str] = (),
) -> WeightsReport:
    """Load weights into a backbone, whether attention is attached already or not.

    A prefix that all the keys of the source share with none of the backbone's (``module.``, ``encoder.``,
    ``network.model.encoder.``) is dropped.

    Args:
        backbone: Changed in place.
        state: The source's tensors by name.
        source: How to call the source in messages.
        new: Keys of the backbone that its attention modules have added, and that the source may lack.
        dropped: Parts of the backbone, by name, that were taken out and that the source may still have.

    Raises:
        AttnlabError: When a tensor is missing, is left over or has another shape; nothing is loaded then.
    """
    fit = compare(backbone, state, new)
    known = (*CLASSIFIER_PREFIXES, *(f"{name}." for name in dropped))
    problems = fit.problems([] if fit.prefix else [k for k in fit.left if not k.startswith(known)])
    if problems:
        raise AttnlabError(
            f"The weights of {source} do not fit the backbone {type(backbone).__name__}: {problems}. "
            "Choose the encoder they were trained with."
        )
    # Some encoders of segmentation-models-pytorch pop their classifier's keys here and return nothing; the
    # comparison above has already told what is missing.
    backbone.load_state_dict(fit.fitting, strict=False)
    return WeightsReport(source, len(fit.fitting), fit.new, fit.left)


@dataclass(frozen=True)
class Fit:
    """How a source's tensors fit a network.

    Attributes:
        prefix: What was dropped from the source's keys. Keys of the source without it are left aside.
        fitting: Tensors that have a place, whatever their shape.
        missing: Keys of the network that the source lacks and must have.
        new: Keys of the network that the source may lack, and does.
        left: Keys of the source, less the prefix, that have no place.
        shapes: The shape of each fitting tensor that has another one in the network: the source's, the
            network's.
    """

    prefix: str
    fitting: dict[str, Tensor]
    missing: list[str]
    new: list[str]
    left: list[str]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def problems(self, stray: list[str]) -> str:
        """What does not fit, in words; empty if all does.

        Args:
            stray: The keys of ``left`` that the source should not have.
        """
        shapes = [
            f"{key}: {theirs} in the file, {ours} in the network"
            for key, (theirs, ours) in self.shapes.items()
        ]
        parts = (
            _summary("missing in the file", self.missing),
            _summary("not in the network", stray),
            _summary("of another shape", shapes),
        )
        return "; ".join(part for part in parts if part)


def compare(network: nn.Module, state: Mapping[str, Tensor], new: Collection[str] = frozenset()) -> Fit:
    """Compare a source's tensors with a network's, by name and shape.

    Args:
        network: The network, left as it is.
        state: The source's tensors by name. A prefix that their keys share with none of the network's is
            dropped.
        new: Keys of the network that the source may lack.
    """
    wanted = network.state_dict()
    prefix = _common_prefix(wanted, state)
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    fitting = {key: found[key] for key in wanted if key in found}
    absent = [key for key in wanted if key not in found]
    return Fit(
        prefix=prefix,
        fitting=fitting,
        # A counter that older files lack and that no output depends on.
        missing=[key for key in absent if key not in new and not key.endswith("num_batches_tracked")],
        new=[key for key in absent if key in new],
        left=[key for key in found if key not in wanted],
        shapes={
            key: (tuple(value.shape), tuple(wanted[key].shape))
            for key, value in fitting.items()
            if value.shape != wanted[key].shape
        },
    )


def _common_prefix(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The prefix whose removal makes most keys of ``state`` match ``wanted``."""
    counts: dict[str, int] = {}
    for key in state:
        parts = key.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in wanted:
                prefix = "".join(f"{part}." for part in parts[:depth])
                counts[prefix] = counts.get(prefix, 0) + 1
                break
    return max(counts, key=lambda p: (counts[p], -len(p)), default="")


def _summary(what: str, keys: list[str], shown: int = 4) -> str:
    if not keys:
        return ""
    more = f", … ({len(keys)} in all)" if len(keys) > shown else ""
    return f"{what}: {', '.join(keys[:shown])}{more}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
