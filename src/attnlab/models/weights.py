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
            f"Could not fetch the '{weights}' weights of encoder '{encoder}': {_first_line(error)} "
            "With no connection, pass a file instead: --model.weights FILE (a torch state dict or "
            "safetensors with the encoder's keys), or --model.weights none to train from scratch."
        ) from error
    return dict(network.state_dict())


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a weights file: a torch state dict, a checkpoint that holds one, or safetensors.

    Args:
        path: The file. It is read with ``weights_only=True``: no code in it is run.

    Raises:
        AttnlabError: When it is missing, cannot be read, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise AttnlabError(
            f"Weights file not found: {path}. --model.weights takes none, imagenet or a file's path."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise AttnlabError(f"Cannot read weights from {path}: {_first_line(error)}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise AttnlabError(f"Cannot read weights from {path}: {_first_line(error)}") from error
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
    wanted = backbone.state_dict()
    prefix = _common_prefix(wanted, state)
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    shared = wanted.keys() & found.keys()
    # A counter that older files lack and that no output depends on.
    missing = [k for k in wanted if k not in found and k not in new and not k.endswith("num_batches_tracked")]
    left = [k for k in found if k not in wanted]
    known = (*CLASSIFIER_PREFIXES, *(f"{name}." for name in dropped))
    stray = [] if prefix else [k for k in left if not k.startswith(known)]
    shapes = [
        f"{k}: {tuple(found[k].shape)} in the file, {tuple(wanted[k].shape)} in the network"
        for k in sorted(shared)
        if found[k].shape != wanted[k].shape
    ]
    problems = [
        *_summary("missing in the file", missing),
        *_summary("not in the network", stray),
        *_summary("of another shape", shapes),
    ]
    if problems:
        raise AttnlabError(
            f"The weights of {source} do not fit the backbone {type(backbone).__name__}: "
            + "; ".join(problems)
            + ". Choose the encoder they were trained with."
        )
    # Some encoders of segmentation-models-pytorch pop their classifier's keys here and return nothing; the
    # comparison above has already told what is missing.
    backbone.load_state_dict({k: found[k] for k in shared}, strict=False)
    return WeightsReport(source, len(shared), [k for k in wanted if k not in found and k in new], left)


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


def _summary(what: str, keys: list[str], shown: int = 4) -> list[str]:
    if not keys:
        return []
    more = f", … ({len(keys)} in all)" if len(keys) > shown else ""
    return [f"{what}: {', '.join(keys[:shown])}{more}"]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
