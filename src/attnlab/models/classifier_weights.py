"""Pretrained weights of whole classification networks, whose classifier may be of other classes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from attnlab.errors import AttnlabError
from attnlab.models.classifiers import find_network
from attnlab.models.weights import Fit, compare, first_line


@dataclass(frozen=True)
class ClassifierWeightsReport:
    """What a load did.

    Attributes:
        source: File or library the weights came from.
        loaded: How many tensors were taken over.
        new: Keys of attention modules, which keep their initial values.
        unused: Keys of the source that have no place here: its classifier of other classes, and auxiliary
            classifiers.
        head_replaced: Why the classifier keeps its random start; None where it was loaded.
    """

    source: str
    loaded: int
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    head_replaced: str | None = None

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"Weights from {self.source}: {self.loaded} tensors loaded, {len(self.new)} of attention modules "
            f"start anew, {len(self.unused)} left out; "
            f"{self.head_replaced or 'the classifier is loaded too'}."
        )


def library_classifier_weights(network: str) -> dict[str, Tensor]:
    """State dict of a network as its library publishes it by default; downloads it where it is not cached.

    Args:
        network: Name of the network, as for `build_classifier`.

    Raises:
        AttnlabError: When there are no such weights, or they cannot be fetched.
    """
    library, name = find_network(network)
    instead = (
        "pass a file instead: --model.weights FILE (a torch state dict or safetensors with the network's "
        "keys), or --model.weights none to train from scratch."
    )
    try:
        state = _from_torchvision(name) if library == "torchvision" else _from_timm(name)
    except (OSError, RuntimeError) as error:
        # The hub clients raise their own kinds of both when offline; their text says which host.
        raise AttnlabError(
            f"Could not fetch the ImageNet weights of {library}'s '{name}': {first_line(error)} "
            f"With no connection, {instead}"
        ) from error
    if state is None:
        raise AttnlabError(f"{library} publishes no ImageNet weights of '{name}'; {instead}")
    return state


def load_classifier(
    network: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    head: str,
    new: Collection[str] = frozenset(),
) -> ClassifierWeightsReport:
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
    heads = {key for key in network.state_dict() if key.rpartition(".")[0] == head}
    fit = compare(network, state, new)
    replaced = _head_replaced(fit, head)
    unused = [key for key in fit.fitting if key in heads] if replaced else []
    if replaced:
        fit = _without(fit, heads)
    stem = _first_convolution(network, new)
    if stem in fit.shapes and (len(fit.shapes) == 1 or _kernels_differ(fit, stem)):
        theirs, ours = fit.shapes[stem]
        raise AttnlabError(
            f"The weights of {source} do not fit the stem of {type(network).__name__}: {stem} is {theirs} in "
            f"the file and {ours} in the network. Leave --model.stem_stride away, or train from scratch with "
            "--model.weights none."
        )
    if problems := fit.problems([key for key in fit.left if not _is_auxiliary(key)]):
        raise AttnlabError(
            f"The weights of {source} do not fit {type(network).__name__}: {problems}. Choose the network "
            "they were trained with, with the same options."
        )
    network.load_state_dict(fit.fitting, strict=False)
    return ClassifierWeightsReport(source, len(fit.fitting), fit.new, [*unused, *fit.left], replaced)


def _from_torchvision(name: str) -> dict[str, Tensor] | None:
    from torchvision import models

    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    if weights is None:
        return None
    # Torch says what it fetches and to where; its bar belongs on a terminal alone.
    return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))


def _from_timm(name: str) -> dict[str, Tensor] | None:
    import timm

    if not timm.is_model_pretrained(name):
        return None
    return dict(timm.create_model(name, pretrained=True).state_dict())


def _head_replaced(fit: Fit, head: str) -> str | None:
    """Why the classifier starts anew; None if the source has one of as many classes."""
    key = f"{head}.weight"
    if key not in fit.fitting:
        return f"the classifier {head} starts anew: there is none in the file"
    theirs, ours = fit.shapes.get(key, ((0,), (0,)))
    if theirs[0] == ours[0]:
        return None
    return f"the classifier {head} starts anew: {ours[0]} classes here, {theirs[0]} in the file"


def _without(fit: Fit, keys: Collection[str]) -> Fit:
    """The same comparison, with some of the network's keys left out of it."""
    return replace(
        fit,
        fitting={key: value for key, value in fit.fitting.items() if key not in keys},
        missing=[key for key in fit.missing if key not in keys],
        shapes={key: shapes for key, shapes in fit.shapes.items() if key not in keys},
    )


def _first_convolution(network: nn.Module, new: Collection[str]) -> str:
    weights = (key for key, value in network.state_dict().items() if value.ndim == 4 and key not in new)
    return next(weights, "")


def _kernels_differ(fit: Fit, key: str) -> bool:
    theirs, ours = fit.shapes[key]
    return theirs[2:] != ours[2:]


def _is_auxiliary(key: str) -> bool:
    return key.partition(".")[0].lower().startswith("aux")
