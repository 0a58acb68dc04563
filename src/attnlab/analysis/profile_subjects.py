"""The networks and attention modules that ``profile`` measures."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, cast

from attnlab.analysis.sites import build_network
from attnlab.attention import Mode, get_attention, list_attentions
from attnlab.attention.wrapper import MODES
from attnlab.errors import AttnlabError, known_name, unknown
from attnlab.models import BuiltNetwork, build_classifier, build_detector, build_segmenter
from attnlab.models.built import without_values
from attnlab.recipes import as_block, read_recipe

DEFAULT_ATTENTIONS = ("none", "se", "eca", "cbam", "ca", "sa", "ela_t", "ela_b", "ela_s", "ela_l")
DEFAULT_CLASSES = {"classification": 1000, "segmentation": 21, "detection": 80}
BUILDERS: dict[str, Callable[..., BuiltNetwork]] = {
    "classification": build_classifier,
    "segmentation": build_segmenter,
    "detection": build_detector,
}
CLASSES = [f"{task.capitalize()}Task" for task in BUILDERS]
ATTENTION_KEYS = ("name", "at", "mode", "shared", "options")


@dataclass(frozen=True)
class Variant:
    """One attention module with options.

    Attributes:
        label: Its label in the table, as typed, e.g. ``se:reduction=32``.
        name: A registered name, or an import path.
        options: Its options.
    """

    label: str
    name: str
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read ``NAME`` or ``NAME:KEY=VALUE[,KEY=VALUE]``; a value that is not JSON is text.

        Raises:
            AttnlabError: Unknown attention or option, or a word that is not KEY=VALUE.
        """
        name, colon, rest = text.partition(":")
        if "/" in name:
            raise AttnlabError(
                f"--attention takes attention modules, got '{text}'. Put networks before --attention."
            )
        usage = f"'{text}': --attention takes NAME:KEY=VALUE[,KEY=VALUE], e.g. se:reduction=32"
        options = key_values(rest.split(",") if colon else (), usage)
        get_attention(name).check(options)
        return cls(text, name, options)


def key_values(words: Iterable[str], usage: str) -> dict[str, Any]:
    """``reduction=8`` -> ``{"reduction": 8}``; a value that is not JSON is text.

    Raises:
        AttnlabError: For other words; the message starts with the usage.
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
    """A network to profile, and its attention modules.

    Attributes:
        name: Its name in the table.
        build: Builds it without attention on a device; a network that cannot be built on ``meta`` may be on
            the CPU.
        variants: The attentions.
        at: Placement, as for `attnlab.attention.attach`.
        mode: Mode, as for `attnlab.attention.attach`.
        shared: Whether sites share modules, as for `attnlab.attention.attach`.
    """

    name: str
    build: Callable[[Literal["meta", "cpu"]], BuiltNetwork]
    variants: Sequence[Variant]
    at: str | Sequence[str] = "auto"
    mode: Mode = "replace"
    shared: bool | None = None

    @property
    def compared(self) -> list[Variant]:
        """The network without attention, then each variant once."""
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
    """Parse and check the command line, as far as possible without a network.

    Args:
        networks: Names as for `attnlab.analysis.sites.build_network`.
        configs: Recipes. Arguments below that are None are taken from them.
        attentions: As for `Variant.parse`; ``all`` means every registered one, and None, for networks, those
            compared in the paper.
        at: Placement; for networks None means ``auto``.
        mode: Mode; for networks None means ``replace``.
        num_classes: Number of classes; None means each network's default.

    Raises:
        AttnlabError: There is nothing to profile, or an argument is invalid.
    """
    if attentions is not None and "all" in attentions:
        registered = list_attentions()
        attentions = [*registered, *(name for name in attentions if name not in ("all", *registered))]
    given = None if attentions is None else list(map(Variant.parse, attentions))
    if not networks and not configs:
        raise AttnlabError("profile needs a network, e.g. torchvision/resnet18, or --config FILE.")
    if num_classes is not None and num_classes < 1:
        raise AttnlabError(f"--classes must be at least 1, got {num_classes}.")
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
    """A network by name; the default number of classes is 21 for ``smp``, else the library's."""
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
    """The network of a recipe, with its attention and without.

    Given attentions, placement and mode replace the recipe's. The default number of classes is 1000 for
    classification, 21 for segmentation and 80 for detection.

    Raises:
        AttnlabError: The file cannot be read, or names something unknown.
    """
    task, model = task_and_model(read_recipe(path), path)
    attention = as_block(model.get("attention"), f"model.attention in {path}")
    for key in attention:
        if key not in ATTENTION_KEYS:
            raise unknown(f"key of model.attention in {path}", str(key), ATTENTION_KEYS)
    if variants is None:
        name, options = attention.get("name", "none"), attention.get("options") or {}
        get_attention(name).check(options)
        words = ",".join(f"{key}={json.dumps(value)}" for key, value in options.items())
        variants = [Variant(f"{name}:{words}" if words else name, name, options)]
    builder = BUILDERS[task]
    names = list(inspect.signature(builder).parameters)
    others = {name for build in BUILDERS.values() for name in inspect.signature(build).parameters} - set(
        names
    )
    for key in model:
        # Other keys do not matter here; a misspelled one would silently leave a default.
        if key in others or (key not in names and get_close_matches(key, names, cutoff=0.75)):
            raise unknown(f"key of model in {path}", key, names)
    own = {key: model[key] for key in names if key in model}
    own["num_classes"] = num_classes or own.get("num_classes") or DEFAULT_CLASSES[task]
    if task == "detection" and isinstance(options := own.get("network_options"), dict):
        own["network_options"] = _of_one_size(options)
    for key in ("network", "architecture", "encoder"):
        if not isinstance(own.get(key, ""), str):
            raise AttnlabError(f"model.{key} in {path} must be a name, got {own[key]!r}.")

    def build(device: str) -> BuiltNetwork:
        meta = device == "meta" and task != "detection"
        return without_values(partial(builder, **own)) if meta else builder(**own)

    at, mode = at or attention.get("at", "auto"), mode or attention.get("mode", "replace")
    return Subject(path, build, variants, at, mode, attention.get("shared"))


def task_and_model(content: Mapping[str, Any], path: str) -> tuple[str, dict[str, Any]]:
    """The task of a recipe, and its model's options.

    Raises:
        AttnlabError: Its task is not one of attnlab's.
    """
    model = content.get("model", {})
    named = model.get("class_path", "SegmentationTask")
    task = named.rpartition(".")[2].removesuffix("Task").lower()
    if task not in BUILDERS:
        raise unknown(f"task of {path}", named, CLASSES)
    return task, model.get("init_args", {})


def _of_one_size(options: Mapping[str, Any]) -> dict[str, Any]:
    """A detector's options with training at the evaluation size, so that all steps are alike."""
    kept = {key: value for key, value in options.items() if key != "train_sizes"}
    if isinstance(sizes := kept.get("min_size"), list) and sizes:
        kept["min_size"] = sizes[-1]
    return kept
