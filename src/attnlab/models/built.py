"""The return value of all network builders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from attnlab.errors import AttnlabError

# Errors of the libraries' constructors for unusable options.
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError)
T = TypeVar("T")
State = Mapping[str, Tensor]


def _none_published() -> dict[str, Tensor]:
    raise AttnlabError("There are no published weights of this network: use --model.weights none, or a file.")


@dataclass(frozen=True)
class BuiltNetwork:
    """A network with random weights, and its properties.

    Attributes:
        network: (B, 3, H, W) -> logits (B, K) of a classifier, (B, K, H, W) of a segmenter. A detector takes
            images in 0..1, as a sequence of (3, h, w) or (B, 3, h, w), and targets in training; it returns
            losses by name in training, else a dict per image of ``boxes`` (M, 4) as x0, y0, x1, y1 in its
            pixels, ``scores`` (M,), descending, and ``labels`` (M,).
        backbone: Name of the submodule that takes weights of a classification network. ``""`` in a
            classifier: all but the class layers.
        class_layers: Names of the layers that depend on the number of classes.
        free_options: Options that may differ for a trained network: sizes, thresholds, and what acts only in
            training.
        example_size: Height and width in pixels of the image for counting MACs, if the network resizes images
            itself.
        first_label: A detector's label of class 0 in targets and detections: 1 if 0 is the background. None:
            not a detector.
        dropped: Names of unused parts of the backbone that were removed.
        renamings: Functions that rename tensors of older versions or other projects to the names used here.
        imagenet: Returns the published weights of the network or its backbone, or raises an AttnlabError.
    """

    network: nn.Module
    backbone: str = ""
    class_layers: tuple[str, ...] = ()
    free_options: frozenset[str] = frozenset()
    example_size: tuple[int, int] | None = None
    first_label: int | None = None
    dropped: tuple[str, ...] = ()
    renamings: tuple[Callable[[State], dict[str, Tensor]], ...] = ()
    imagenet: Callable[[], dict[str, Tensor]] = _none_published


def without_values(build: Callable[[], T]) -> T:
    """Build on ``meta``, without memory, unless the network reads values while it is built."""
    with suppress(AttnlabError, NotImplementedError, RuntimeError), torch.device("meta"):
        return build()
    return build()
