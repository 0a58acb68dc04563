"""Pretrained weights of backbones and classifiers: from their library or a file, and what of them fitted."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from attnlab.errors import AttnlabError
from attnlab.models.classifiers import find_network

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
        part: What they are of: ``network``, ``detector`` or ``backbone``.
        loaded: How many tensors were taken over.
        new: Keys of attention modules, which keep their initial values.
        unused: Keys of the source that have no place here: its classifier of other classes, auxiliary
            classifiers, and stages that are not used.
        restarted: Keys of a detector's layers for other classes, which keep their initial values.
        head_replaced: Why the classifier of a network keeps its random start; None where it was loaded.
    """

    source: str
    part: str
    loaded: int
    new: list[str]
    unused: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    head_replaced: str | None = None

    def __str__(self) -> str:
        """One line for a log."""
        text = (
            f"Weights of the {self.part} from {self.source}: {self.loaded} tensors loaded, {len(self.new)} "
            f"of attention modules start anew, {len(self.unused)} left out"
        )
        if self.restarted:
            text += f"; for another number of classes, these start anew: {', '.join(self.restarted)}"
        if self.part == "network":
            text += f"; {self.head_replaced or 'the classifier is loaded too'}"
        return f"{text}."


def library_encoder_weights(encoder: str, depth: int = 5) -> dict[str, Tensor]:
    """State dict of an encoder's ImageNet weights from its library; downloads it where it is not cached.

    Args:
        encoder: Name of an encoder of segmentation-models-pytorch.
        depth: Number of stages of the encoder.

    Raises:
        AttnlabError: When there are no such weights, or they cannot be fetched.
    """
    import segmentation_models_pytorch as smp

    weights = True if encoder.startswith("tu-") else "imagenet"
    with _fetching(f"the 'imagenet' weights of encoder '{encoder}'", "encoder"):
        try:
            network = smp.encoders.get_encoder(encoder, weights=weights, depth=depth)
        except KeyError as error:
            raise AttnlabError(f"No 'imagenet' weights for encoder '{encoder}': {error.args[0]}") from error
    return dict(network.state_dict())


def library_classifier_weights(network: str) -> dict[str, Tensor]:
    """State dict of a classification network's ImageNet weights, by its name as for `build_classifier`.

    Raises:
        AttnlabError: When there are no such weights, or they cannot be fetched.
    """
    library, name = find_network(network)
    with _fetching(f"the ImageNet weights of {library}'s '{name}'", "network") as instead:
        if library == "torchvision":
            if weights := getattr(models.get_model_weights(name), "DEFAULT", None):
                # Torch says what it fetches and to where; its bar belongs on a terminal alone.
                return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
        else:
            import timm

            if timm.is_model_pretrained(name):
                return dict(timm.create_model(name, pretrained=True).state_dict())
    raise AttnlabError(f"{library} publishes no ImageNet weights of '{name}'; {instead}")


@contextmanager
def _fetching(what: str, part: str) -> Iterator[str]:
    """One error for what the hub clients raise when offline: their own kinds of two that say which host."""
    instead = (
        f"pass a file instead: --model.weights FILE (a torch state dict or safetensors with the {part}'s "
        "keys), or --model.weights none to train from scratch."
    )
    try:
        yield instead
    except (OSError, RuntimeError) as error:
        raise AttnlabError(
            f"Could not fetch {what}: {first_line(error)} With no connection, {instead}"
        ) from error


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
    unreadable = (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, SafetensorError)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except unreadable as error:
        raise AttnlabError(f"Cannot read weights from {path}: {first_line(error)}") from error
    content = content if isinstance(content, Mapping) else {}
    for key in ("state_dict", "model", "model_state"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
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
    stray = [] if fit.prefix else [key for key in fit.left if not key.startswith(known)]
    fit.load(backbone, source, stray, "the backbone ", "encoder they were trained with")
    return WeightsReport(source, "backbone", len(fit.fitting), fit.new, fit.left)


def load_classifier(
    network: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    head: str,
    new: Collection[str] = frozenset(),
) -> WeightsReport:
    """Load weights into a classification network, whether attention is attached already or not.

    A prefix of the source's keys (``module.``, ``network.``, ``backbone.``) is dropped. A classifier that the
    source lacks, or that has another number of classes there, keeps its random start.

    Args:
        network: Changed in place.
        state: The source's tensors by name.
        source: How to call the source in messages.
        head: Name of the layer that makes the logits (`head_name`).
        new: Keys of the network that its attention modules have added, and that the source may lack.

    Raises:
        AttnlabError: When any other tensor is missing, is left over or has another shape; nothing is loaded
            then. Auxiliary classifiers may be left over.
    """
    fit = compare(network, state, new)
    unused: list[str] = []
    replaced, key = None, f"{head}.weight"
    theirs, ours = fit.shapes.get(key, ((0,), (0,)))
    if key not in fit.fitting:
        replaced = f"the classifier {head} starts anew: there is none in the file"
    elif theirs[0] != ours[0]:
        replaced = f"the classifier {head} starts anew: {ours[0]} classes here, {theirs[0]} in the file"
    if replaced:
        heads = {key for key in network.state_dict() if key.rpartition(".")[0] == head}
        unused = [key for key in fit.fitting if key in heads]
        fit = fit.without(heads)
    stem = next(
        (key for key, value in network.state_dict().items() if value.ndim == 4 and key not in new), ""
    )
    theirs, ours = fit.shapes.get(stem, ((), ()))
    if stem in fit.shapes and (len(fit.shapes) == 1 or theirs[2:] != ours[2:]):
        raise AttnlabError(
            f"The weights of {source} do not fit the stem of {type(network).__name__}: {stem} is {theirs} in "
            f"the file and {ours} in the network. Leave --model.stem_stride away, or train from scratch with "
            "--model.weights none."
        )
    stray = [key for key in fit.left if not key.partition(".")[0].lower().startswith("aux")]
    fit.load(network, source, stray, "", "network they were trained with, with the same options")
    return WeightsReport(
        source, "network", len(fit.fitting), fit.new, [*unused, *fit.left], head_replaced=replaced
    )


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

    def without(self, keys: Collection[str]) -> Fit:
        """The same comparison, with some of the network's keys left out of it."""
        return replace(
            self,
            fitting={key: value for key, value in self.fitting.items() if key not in keys},
            missing=[key for key in self.missing if key not in keys],
            shapes={key: shapes for key, shapes in self.shapes.items() if key not in keys},
        )

    def load(self, network: nn.Module, source: str, stray: Collection[str], kind: str, choice: str) -> None:
        """Load what fits, or nothing if other tensors do not.

        Args:
            network: Changed in place.
            source: How to call the source in messages.
            stray: The keys of ``left`` that the source should not have.
            kind: What to call the network in messages, before its class.
            choice: What the message tells the user to choose.
        """
        shapes = [
            f"{key}: {theirs} in the file, {ours} in the network"
            for key, (theirs, ours) in self.shapes.items()
        ]
        problems = {
            "missing in the file": self.missing,
            "not in the network": stray,
            "of another shape": shapes,
        }
        if texts := [f"{what}: {some(keys, 4)}" for what, keys in problems.items() if keys]:
            raise AttnlabError(
                f"The weights of {source} do not fit {kind}{type(network).__name__}: {'; '.join(texts)}. "
                f"Choose the {choice}."
            )
        # Some encoders of segmentation-models-pytorch pop their classifier's keys here and return nothing;
        # the comparison has already told what is missing.
        network.load_state_dict(self.fitting, strict=False)


def compare(network: nn.Module, state: Mapping[str, Tensor], new: Collection[str] = frozenset()) -> Fit:
    """Compare a source's tensors with a network's, by name and shape.

    A prefix that the source's keys share with none of the network's is dropped; it may lack the keys ``new``.
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
    counts: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        depths = (depth for depth in range(len(parts)) if ".".join(parts[depth:]) in wanted)
        if (depth := next(depths, None)) is not None:
            counts["".join(f"{part}." for part in parts[:depth])] += 1
    return max(counts, key=lambda p: (counts[p], -len(p)), default="")


def some(keys: Collection[str], shown: int = 3) -> str:
    """The first of some names, and how many there are."""
    more = f", … ({len(keys)} in all)" if len(keys) > shown else ""
    return ", ".join(list(keys)[:shown]) + more


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
