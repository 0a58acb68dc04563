"""What ``profile`` measures: attentions with options, in networks of libraries and of configurations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import nn

from attnlab.analysis.sites import build_network
from attnlab.attention import Mode, get_attention, list_attentions
from attnlab.attention.wrapper import MODES
from attnlab.errors import AttnlabError, known_name, unknown
from attnlab.recipes import read_yaml

DEFAULT_ATTENTIONS = ("none", "se", "eca", "cbam", "ca", "sa", "ela_t", "ela_b", "ela_s", "ela_l")
DEFAULT_CLASSES = {"classification": 1000, "segmentation": 21}
ATTENTION_KEYS = ("name", "at", "mode", "options")


@dataclass(frozen=True)
class Variant:
    """One attention module with options.

    Attributes:
        label: What the table calls it: the words of the user, e.g. ``se:reduction=32``.
        name: A name of the registry, or an import path.
        options: Its options.
    """

    label: str
    name: str
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read ``NAME`` or ``NAME:KEY=VALUE[,KEY=VALUE]``; a value that is no JSON is text.

        Raises:
            AttnlabError: For an unknown attention or option, or words that are no KEY=VALUE.
        """
        name, colon, rest = text.partition(":")
        if "/" in name:
            raise AttnlabError(
                f"--attention names attentions, got '{text}'. Write networks before --attention."
            )
        usage = f"'{text}': --attention takes NAME:KEY=VALUE[,KEY=VALUE], e.g. se:reduction=32"
        options = key_values(rest.split(",") if colon else (), usage)
        get_attention(name).check(options)
        return cls(text, name, options)


def key_values(words: Iterable[str], usage: str) -> dict[str, Any]:
    """``reduction=8`` -> ``{"reduction": 8}``; a value that is no JSON is text.

    Raises:
        AttnlabError: For other words; it begins with the usage.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise AttnlabError(f"{usage}, got '{word}'.")
        options[key] = value
        with suppress(json.JSONDecodeError):
            options[key] = json.loads(value)
    return options


@dataclass(frozen=True)
class Subject:
    """A network to profile, and what goes into it.

    Attributes:
        name: What the table calls it.
        build: Builds it without attention, on the device named; one that cannot be built on ``meta`` may
            come back on the CPU.
        variants: The attentions.
        at: Placement, as for `attnlab.attention.attach`.
        mode: Mode, as for `attnlab.attention.attach`.
    """

    name: str
    build: Callable[[Literal["meta", "cpu"]], nn.Module]
    variants: Sequence[Variant]
    at: str | Sequence[str] = "auto"
    mode: Mode = "replace"

    @property
    def compared(self) -> list[Variant]:
        """No attention first, and every variant once."""
        every = (Variant("none", "none", {}), *self.variants)
        return list({variant.label: variant for variant in every}.values())


def read_subjects(
    networks: Sequence[str],
    configs: Sequence[str] = (),
    attentions: Sequence[str] | None = None,
    at: str | Sequence[str] | None = None,
    mode: Mode | None = None,
    num_classes: int | None = None,
) -> list[Subject]:
    """The words of the command line, read and checked as far as that needs no network.

    Args:
        networks: Names as for `attnlab.analysis.sites.build_network`.
        configs: YAML files of trainings. What is None below is as they say.
        attentions: As for `Variant.parse`; ``all`` stands for every registered one, and None, in networks,
            for those that the paper compares.
        at: Placement; in networks None is ``auto``.
        mode: Mode; in networks None is ``replace``.
        num_classes: Number of classes; None is the default of each network.

    Raises:
        AttnlabError: If there is nothing to profile, or one of the words cannot work.
    """
    if attentions is not None and "all" in attentions:
        registered = list_attentions()
        attentions = [*registered, *(name for name in attentions if name not in ("all", *registered))]
    given = None if attentions is None else list(map(Variant.parse, attentions))
    if not networks and not configs:
        raise AttnlabError("profile needs a network, e.g. torchvision/resnet18, or --config FILE.")
    if num_classes is not None and num_classes < 1:
        raise AttnlabError(f"--classes is at least 1, got {num_classes}.")
    if mode is not None:
        mode = cast(Mode, known_name(mode, MODES))
        if mode not in MODES:
            raise unknown("attention mode", mode, MODES)
    usual = given or list(map(Variant.parse, DEFAULT_ATTENTIONS))
    return [
        *(library_subject(name, usual, at or "auto", mode or "replace", num_classes) for name in networks),
        *(config_subject(path, given, at, mode, num_classes) for path in configs),
    ]


def library_subject(
    name: str, variants: Sequence[Variant], at: str | Sequence[str], mode: Mode, num_classes: int | None
) -> Subject:
    """A network by its name; without a number of classes, 21 for ``smp`` and else the library's own."""
    if num_classes is None and name.startswith("smp/"):
        num_classes = DEFAULT_CLASSES["segmentation"]
    return Subject(name, lambda device: build_network(name, num_classes, device), variants, at, mode)


def config_subject(
    path: str,
    variants: Sequence[Variant] | None = None,
    at: str | Sequence[str] | None = None,
    mode: Mode | None = None,
    num_classes: int | None = None,
) -> Subject:
    """The network of a training's YAML, and its attention beside none.

    Attentions, placement and mode that are given take the place of the YAML's. Without a number of classes
    there are 1000 in classification, and 21 in segmentation.

    Raises:
        AttnlabError: If the file cannot be read, or does not say which network it trains.
    """
    content = read_yaml(path)
    task = content.get("task", "segmentation")
    if task not in DEFAULT_CLASSES:
        raise unknown(f"task of {path}", str(task), DEFAULT_CLASSES)
    model = _block(content, "model", path)
    attention = _block(model, "attention", path, "model.")
    for key in attention:
        if key not in ATTENTION_KEYS:
            raise unknown(f"key of model.attention in {path}", str(key), ATTENTION_KEYS)
    if variants is None:
        name, options = attention.get("name", "none"), attention.get("options") or {}
        get_attention(name).check(options)
        words = ",".join(f"{key}={json.dumps(value)}" for key, value in options.items())
        variants = [Variant(f"{name}:{words}" if words else name, name, options)]
    build = _builder(task, model, num_classes or DEFAULT_CLASSES[task], path)
    at, mode = at or attention.get("at", "auto"), mode or attention.get("mode", "replace")
    return Subject(path, build, variants, at, mode)


def _builder(task: str, model: Mapping[str, Any], num_classes: int, path: str) -> Callable[[str], nn.Module]:
    """Builds the network of a model block, always on the CPU: segmenters are tried out while built."""

    def named(key: str) -> str:
        if not isinstance(model.get(key), str):
            raise AttnlabError(f"{path} names no model.{key}, so its network cannot be built.")
        return model[key]

    if task == "classification":
        from attnlab.models.classifiers import build_classifier

        network, options, stride = named("network"), model.get("network_options"), model.get("stem_stride")
        return lambda device: build_classifier(network, num_classes, options, stride)
    from attnlab.models import build_segmenter

    architecture, encoder = named("architecture"), named("encoder")
    options = model.get("architecture_options")
    return lambda device: build_segmenter(architecture, encoder, num_classes, options)


def _block(content: Mapping[str, Any], key: str, path: str, prefix: str = "") -> dict[str, Any]:
    """A mapping within a configuration; a missing one is empty, a written-out class gives its arguments."""
    block = content.get(key) or {}
    if isinstance(block, dict):
        block = block.get("init_args", block)
    if not isinstance(block, dict):
        raise AttnlabError(f"{prefix}{key} of {path} holds no keys but {block!r}.")
    return block
