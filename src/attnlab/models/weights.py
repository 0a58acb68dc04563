"""Loads pretrained weights, from a library or a file, into a network or its backbone."""

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

# Classifier layers that a backbone lacks; anything else left over in a file is an error.
CLASSIFIER_PREFIXES = ("classifier.", "fc.", "head.", "heads.", "last_linear.", "conv_head.", "global_pool.")
_ATTENTION = re.compile(r"(^|\.)(attention\.|attention_alpha$)")


@dataclass(frozen=True)
class WeightsReport:
    """The result of loading weights.

    Attributes:
        source: File or library that the weights come from.
        part: What they were loaded into: ``network`` or ``backbone``.
        loaded: Number of tensors loaded.
        new: Keys of attention modules, which keep their initial values.
        unused: Keys of the source that are not used: layers for other classes, auxiliary classifiers, unused
            stages.
        restarted: Keys of class layers that keep their initial values.
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
            f"of attention modules newly initialised, {len(self.unused)} unused"
        )
        if self.restarted:
            text += f"; {self.reason}, so these are newly initialised: {', '.join(self.restarted)}"
        return f"{text}."


def weights_file(path: str | Path) -> Path:
    """The path of an existing weights file.

    Raises:
        AttnlabError: It does not exist; the message says where to get it, if known.
    """
    path = Path(path)
    if not path.is_file():
        where = f" {YOLOX_FILES}" if path.name.lower().startswith("yolox") else ""
        raise AttnlabError(
            f"Weights file not found: {path}. --model.weights takes none, imagenet or a file path.{where}"
        )
    return path


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a weights file: a torch state dict, a checkpoint that holds one, or safetensors.

    Args:
        path: The file; read with ``weights_only=True``, so no code in it is run.

    Raises:
        AttnlabError: It is missing, unreadable, or contains no tensors.
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
        raise AttnlabError(f"{path} contains no named tensors; expected a state dict.")
    return tensors


def load_weights(built: BuiltNetwork, weights: str | Path | Mapping[str, Tensor]) -> WeightsReport:
    """Load weights into a network, whether attention is attached already or not.

    They are loaded into the whole network if more of them fit it than its backbone. A prefix of the keys
    (``module.``, ``network.``) is dropped, and names of other projects and older versions are translated.
    Class layers stay random if the source lacks them or has another number of classes; attention modules if
    the source lacks them.

    Args:
        built: Its network is changed in place.
        weights: ``imagenet``, a file's path, or tensors by name.

    Raises:
        AttnlabError: They cannot be downloaded or read, or any other tensor is missing, left over or of
            another shape; then nothing is loaded. Auxiliary classifiers may be left over and, for a backbone,
            a classifier and unused stages.
    """
    if isinstance(weights, Mapping):
        state, source = weights, "the given state dict"
    elif weights == "imagenet":
        state, source = built.imagenet(), "the published ImageNet weights"
    else:
        state, source = read_state_dict(weights), str(weights)
    network, backbone = built.network, built.network.get_submodule(built.backbone)
    states = [state, *(rename(state) for rename in built.renamings)]
    whole, part = (max((Fit.of(each, into) for each in states), key=len) for into in (network, backbone))
    if not whole.fitting and not part.fitting:
        raise AttnlabError(
            f"{source} fits neither {type(network).__name__} nor its backbone: its keys are {some(state)}, "
            f"but the network's are {some(network.state_dict())}."
        )
    is_whole = not built.backbone or len(whole) > len(part)
    fit, target, name = (whole, network, "network") if is_whole else (part, backbone, "backbone")
    # Trained attention must not be dropped silently.
    if strangers := [key for key in fit.left if _ATTENTION.search(key)]:
        raise AttnlabError(
            f"{source} has weights of attention modules that the network does not have: {some(strangers)}. "
            "Set --model.attention to the module it was trained with."
        )
    # Counters of BatchNorms that are frozen here and lack them.
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
            "Use the network and options they were trained with."
        )
    loaded = {key: value for key, value in fit.fitting.items() if key not in restarted}
    # Some encoders of segmentation-models-pytorch pop their classifier's keys here and return nothing;
    # missing keys were checked above.
    target.load_state_dict(loaded, strict=False)
    below = "" if is_whole else f"{built.backbone}."
    new = sorted(attention_keys(network) - {below + key for key in loaded})
    unused = [key for key in restarted if key in fit.fitting] + left
    return WeightsReport(source, name, len(loaded), new, unused, restarted, reason)


@dataclass(frozen=True)
class Fit:
    """The match between a source's tensors and a network.

    Attributes:
        prefix: The prefix dropped from the source's keys; keys without it are ignored.
        fitting: Tensors that the network has, whatever their shape.
        missing: Required keys of the network that the source lacks.
        left: Keys of the source, without the prefix, that the network lacks.
        wanted: The network's tensors.
    """

    prefix: str
    fitting: dict[str, Tensor]
    missing: list[str]
    left: list[str]
    wanted: dict[str, Tensor]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], network: nn.Module) -> Fit:
        """Compare by name, dropping a prefix that only the source's keys have."""
        every, new = network.state_dict(), attention_keys(network)
        prefix = _common_prefix(every, state)
        found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        fitting = {key: found[key] for key in every if key in found}
        # BatchNorm counters may be missing: older files lack them, and no output depends on them.
        needed = (key for key in every if key not in new and not key.endswith("num_batches_tracked"))
        missing = [key for key in needed if key not in found]
        return cls(prefix, fitting, missing, [key for key in found if key not in every], every)

    def __len__(self) -> int:
        return len(self.fitting)

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes in the source and the network of fitting tensors, where they differ."""
        pairs = {
            key: (tuple(value.shape), tuple(self.wanted[key].shape)) for key, value in self.fitting.items()
        }
        return {key: (theirs, ours) for key, (theirs, ours) in pairs.items() if theirs != ours}


def _restarted(built: BuiltNetwork, fit: Fit) -> tuple[list[str], str]:
    """The keys of the class layers that stay newly initialised, and why."""
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
    """Give advice if a classifier's first convolution differs."""
    shapes = {key: pair for key, pair in fit.shapes.items() if key not in restarted}
    stem = next((key for key, value in fit.wanted.items() if value.ndim == 4), "")
    theirs, ours = shapes.get(stem, ((), ()))
    if stem in shapes and (len(shapes) == 1 or theirs[2:] != ours[2:]):
        raise AttnlabError(
            f"The weights of {fault}: {stem} is {theirs} in the file and {ours} in the network. Leave "
            "--model.stem_stride out, or train from scratch with --model.weights none."
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
    """The first few names, and their number."""
    more = f", … ({len(keys)} in all)" if len(keys) > shown else ""
    return ", ".join(list(keys)[:shown]) + more
