"""Pretrained weights, from a library or a file: of a whole network, or of its backbone."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from attnlab.attention import attention_keys
from attnlab.errors import AttnlabError
from attnlab.models.built import BuiltNetwork
from attnlab.models.detectors.names import YOLOX_FILES
from attnlab.models.published import first_line

# What a classifier has and a backbone has not; anything else left over in a file is an error.
CLASSIFIER_PREFIXES = ("classifier.", "fc.", "head.", "heads.", "last_linear.", "conv_head.", "global_pool.")
_ATTENTION = re.compile(r"(^|\.)(attention\.|attention_alpha$)")


@dataclass(frozen=True)
class WeightsReport:
    """What a load did.

    Attributes:
        source: File or library the weights came from.
        part: What they are of: ``network`` or ``backbone``.
        loaded: How many tensors were taken over.
        new: Keys of attention modules, which keep their initial values.
        unused: Keys of the source that have no place here: layers for other classes, auxiliary classifiers,
            and stages that are not used.
        restarted: Keys of the class layers, where they keep their initial values.
        reason: Why they do.
    """

    source: str
    part: str
    loaded: int
    new: list[str]
    unused: list[str]
    restarted: list[str]
    reason: str

    def __str__(self) -> str:
        """One line for a log."""
        text = (
            f"Weights of the {self.part} from {self.source}: {self.loaded} tensors loaded, {len(self.new)} "
            f"of attention modules start anew, {len(self.unused)} left out"
        )
        if self.restarted:
            text += f"; {self.reason}, so these start anew: {', '.join(self.restarted)}"
        return f"{text}."


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


def load_weights(built: BuiltNetwork, weights: str | Path | Mapping[str, Tensor]) -> WeightsReport:
    """Load weights into a network, whether attention is attached already or not.

    They are taken for those of the whole network if more of them have a place in it than in its backbone
    alone. A prefix of the source's keys (``module.``, ``network.``) is dropped, and names of other projects
    and older versions are translated. Layers that depend on the classes keep their random start where the
    source has them for another number, or has none; attention modules do where it has none.

    Args:
        built: Its network is changed in place.
        weights: ``imagenet``, a file's path, or tensors by name.

    Raises:
        AttnlabError: When they cannot be fetched or read; when any other tensor is missing, is left over or
            has another shape, and then nothing is loaded. Auxiliary classifiers may be left over and, by a
            backbone, a classifier and stages that are not used.
    """
    if isinstance(weights, Mapping):
        state, source = weights, "the state dict given"
    elif weights == "imagenet":
        state, source = built.imagenet(), "the published ImageNet weights"
    else:
        state, source = read_state_dict(weights), str(weights)
    network, backbone = built.network, built.network.get_submodule(built.backbone)
    states = [state, *(rename(state) for rename in built.renamings)]
    whole, part = (max((Fit.of(each, into) for each in states), key=len) for into in (network, backbone))
    if not whole.fitting and not part.fitting:
        raise AttnlabError(
            f"{source} has weights neither of {type(network).__name__} nor of its backbone: its keys are "
            f"{some(state)}, and here they are {some(network.state_dict())}."
        )
    is_whole = not built.backbone or len(whole) > len(part)
    fit, target, name = (whole, network, "network") if is_whole else (part, backbone, "backbone")
    # Attention that was trained with the other weights cannot be left out without a word.
    if strangers := [key for key in fit.left if _ATTENTION.search(key)]:
        raise AttnlabError(
            f"{source} has weights of attention modules that the network has not: {some(strangers)}. Set "
            "--model.attention to the one that it was trained with."
        )
    # Counters of BatchNorms that are frozen here, and have none.
    left = [key for key in fit.left if not key.endswith("num_batches_tracked")]
    restarted, reason = _restarted(built, fit) if is_whole else ([], "")
    if not built.backbone:
        _check_stem(fit, restarted, f"{source} do not fit the stem of {type(network).__name__}")
    if is_whole:
        stray = [key for key in left if not key.partition(".")[0].lower().startswith("aux")]
    else:
        known = (*CLASSIFIER_PREFIXES, *(f"{name}." for name in built.dropped))
        stray = [] if fit.prefix else [key for key in left if not key.startswith(known)]
    problems = {
        "missing in the file": [key for key in fit.missing if key not in restarted],
        "not in the network": stray,
        "of another shape": [
            f"{key}: {theirs} in the file, {ours} in the network"
            for key, (theirs, ours) in fit.shapes.items()
            if key not in restarted
        ],
    }
    if texts := [f"{problem}: {some(keys, 4)}" for problem, keys in problems.items() if keys]:
        raise AttnlabError(
            f"The weights of {source} do not fit the {name} {type(target).__name__}: {'; '.join(texts)}. "
            "Choose the network they were trained with, with the same options."
        )
    loaded = {key: value for key, value in fit.fitting.items() if key not in restarted}
    # Some encoders of segmentation-models-pytorch pop their classifier's keys here and return nothing; the
    # comparison has already told what is missing.
    target.load_state_dict(loaded, strict=False)
    below = "" if is_whole else f"{built.backbone}."
    new = sorted(attention_keys(network) - {below + key for key in loaded})
    unused = [key for key in restarted if key in fit.fitting] + left
    return WeightsReport(source, name, len(loaded), new, unused, restarted, reason)


@dataclass(frozen=True)
class Fit:
    """How a source's tensors fit a network.

    Attributes:
        prefix: What was dropped from the source's keys. Keys of the source without it are left aside.
        fitting: Tensors that have a place, whatever their shape.
        missing: Keys of the network that the source lacks and must have.
        left: Keys of the source, less the prefix, that have no place.
        wanted: The network's tensors.
    """

    prefix: str
    fitting: dict[str, Tensor]
    missing: list[str]
    left: list[str]
    wanted: dict[str, Tensor]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], network: nn.Module) -> Fit:
        """Compare by name; a prefix that the source's keys share with none of the network's is dropped."""
        every, new = network.state_dict(), attention_keys(network)
        prefix = _common_prefix(every, state)
        found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        fitting = {key: found[key] for key in every if key in found}
        # Of the absent ones, a counter that older files lack and that no output depends on does not matter.
        needed = (key for key in every if key not in new and not key.endswith("num_batches_tracked"))
        missing = [key for key in needed if key not in found]
        return cls(prefix, fitting, missing, [key for key in found if key not in every], every)

    def __len__(self) -> int:
        return len(self.fitting)

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes, the source's and the network's, of the fitting tensors where they differ."""
        pairs = {
            key: (tuple(value.shape), tuple(self.wanted[key].shape)) for key, value in self.fitting.items()
        }
        return {key: (theirs, ours) for key, (theirs, ours) in pairs.items() if theirs != ours}


def _restarted(built: BuiltNetwork, fit: Fit) -> tuple[list[str], str]:
    """The keys of the class layers that start anew, and why."""
    layers = tuple(f"{name}." for name in built.class_layers)
    new, shapes = attention_keys(built.network), fit.shapes
    keys = [key for key in fit.wanted if key.startswith(layers) and key not in new]
    if not any(key in fit.fitting for key in keys):
        return keys, "the class layers are not in the file"
    others = [key for key in keys if key in shapes and shapes[key][0][1:] == shapes[key][1][1:]]
    theirs, ours = shapes[others[0]] if others else ((0,), (0,))
    counted = "classes" if built.first_label is None else "outputs"
    return others, f"{ours[0]} {counted} here, {theirs[0]} in the file"


def _check_stem(fit: Fit, restarted: Collection[str], fault: str) -> None:
    """Say what to do where a classifier's first convolution is another one, and perhaps nothing else is."""
    shapes = {key: pair for key, pair in fit.shapes.items() if key not in restarted}
    stem = next((key for key, value in fit.wanted.items() if value.ndim == 4), "")
    theirs, ours = shapes.get(stem, ((), ()))
    if stem in shapes and (len(shapes) == 1 or theirs[2:] != ours[2:]):
        raise AttnlabError(
            f"The weights of {fault}: {stem} is {theirs} in the file and {ours} in the network. Leave "
            "--model.stem_stride away, or train from scratch with --model.weights none."
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
