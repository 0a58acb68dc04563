"""What every builder of networks returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from attnlab.errors import AttnlabError

# What the libraries' constructors raise for options that they cannot use.
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError)
T = TypeVar("T")
State = Mapping[str, Tensor]


def _none_published() -> dict[str, Tensor]:
    raise AttnlabError(
        "Nobody publishes weights of this network: leave --model.weights none, or name a file."
    )


@dataclass(frozen=True)
class BuiltNetwork:
    """A network with random weights, and what its user must know of it.

    Attributes:
        network: (B, 3, H, W) -> logits (B, K) of a classifier, (B, K, H, W) of a segmenter. A detector takes
            images in 0..1, as a sequence of (3, h, w) or (B, 3, h, w), and in training targets; it gives its
            losses by name in training, and else for each image a dict of ``boxes`` (M, 4) as x0, y0, x1, y1
            in its pixels, ``scores`` (M,), descending, and ``labels`` (M,).
        backbone: Name of the submodule that weights of a classification network are for. ``""``, in a
            classifier: all but the class layers.
        class_layers: Names of the layers that depend on the number of classes.
        free_options: Options that make a trained network no other one: sizes, thresholds, and what acts in
            training alone.
        example_size: Height and width of the image that MACs are counted for, in pixels, where the network
            brings images to a size of its own.
        first_label: What a detector calls class 0 in targets and detections: 1 where 0 is the background.
            None: it is no detector.
        dropped: Parts of the backbone, by name, that this network does not use and that were taken out.
        renamings: Each puts tensors under the names that they have here, if they have those of an older
            version, or of another project.
        imagenet: Gives the published weights of the network or its backbone, or raises an AttnlabError.
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
    """Build on ``meta``, which takes no memory; what reads values as it is built is built for real."""
    with suppress(AttnlabError, NotImplementedError, RuntimeError), torch.device("meta"):
        return build()
    return build()
