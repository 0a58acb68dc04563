"""Networks of torchvision and timm by name, and their ImageNet weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from torch import Tensor
from torchvision import models

from attnlab.errors import AttnlabError, known_name, unknown

LIBRARIES = ("torchvision", "timm")


def find_network(network: str) -> tuple[str, str]:
    """Library and name of a network, given as ``NAME``, ``torchvision/NAME`` or ``timm/NAME``.

    Raises:
        AttnlabError: No library has it.
    """
    library, slash, name = network.rpartition("/")
    if slash and library not in LIBRARIES:
        raise unknown("library of networks", library, LIBRARIES, "Write e.g. torchvision/resnet18.")
    own = models.list_models(module=models)
    if library != "timm" and (known := known_name(name, own)) in own:
        return "torchvision", known
    if library == "torchvision":
        raise unknown("network of torchvision", name, own)
    import timm  # Imported here because it is slow.

    if name and timm.is_model(name):
        return "timm", name
    theirs = timm.list_models()
    if (known := known_name(name, theirs)) != name:
        return "timm", known
    if slash:
        raise unknown("network of timm", name, theirs)
    near = get_close_matches(network.lower(), theirs, n=3, cutoff=0.5)
    raise unknown("network", network, {*own, *near}, "All names of timm.list_models() are known, too.")


def library_classifier_weights(network: str) -> dict[str, Tensor]:
    """State dict of a classification network's ImageNet weights, by name as in `build_classifier`.

    Raises:
        AttnlabError: There are no such weights, or they cannot be downloaded.
    """
    library, name = find_network(network)
    with _fetching(f"the ImageNet weights of {library}'s '{name}'", "network") as instead:
        if library == "torchvision":
            if weights := getattr(models.get_model_weights(name), "DEFAULT", None):
                # Torch logs what it downloads; its progress bar is only for terminals.
                return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
        else:
            import timm

            if timm.is_model_pretrained(name):
                return dict(timm.create_model(name, pretrained=True).state_dict())
    raise AttnlabError(f"{library} publishes no ImageNet weights of '{name}'; {instead}")


def library_encoder_weights(encoder: str, depth: int = 5) -> dict[str, Tensor]:
    """State dict of an encoder's ImageNet weights; downloaded if not cached.

    Args:
        encoder: Name of an encoder of segmentation-models-pytorch.
        depth: Number of stages of the encoder.

    Raises:
        AttnlabError: There are no such weights, or they cannot be downloaded.
    """
    import segmentation_models_pytorch as smp

    weights = True if encoder.startswith("tu-") else "imagenet"
    with _fetching(f"the 'imagenet' weights of encoder '{encoder}'", "encoder"):
        try:
            network = smp.encoders.get_encoder(encoder, weights=weights, depth=depth)
        except KeyError as error:
            raise AttnlabError(f"No 'imagenet' weights for encoder '{encoder}': {error.args[0]}") from error
    return dict(network.state_dict())


@contextmanager
def _fetching(what: str, part: str) -> Iterator[str]:
    """Turn the hub clients' errors when offline into one AttnlabError."""
    instead = (
        f"use a file, --model.weights FILE (a torch state dict or safetensors with the {part}'s keys), or "
        "--model.weights none to train from scratch."
    )
    try:
        yield instead
    except (OSError, RuntimeError) as error:
        raise AttnlabError(
            f"Could not download {what}: {first_line(error)} Without a connection, {instead}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
