"""Attention modules by name.

Each file in ``attention/modules`` registers its class under one or more names; importing that package imports
every file. A name with dots is an import path and needs no registration.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from attnlab.attention.options import Option, check_options, read_options
from attnlab.errors import AttnlabError, known_name, unknown

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])


@dataclass(frozen=True)
class AttentionSpec:
    """A registered attention module.

    Attributes:
        name: The registered name, or the import path.
        module: The class, built as ``module(channels, **options)``.
        paper: Link to the paper; empty if there is none.
        title: Title of the paper; empty if there is none.
        year: Year of the paper's first version.
        presets: Preset option values; explicit options override them.
    """

    name: str
    module: type[nn.Module]
    paper: str = ""
    title: str = ""
    year: int | None = None
    presets: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> list[Option]:
        """The options with type, default (or preset) and help, in the class's order."""
        return read_options(self.module, self.presets)

    def check(self, options: Mapping[str, Any]) -> None:
        """Check options by name and type.

        Args:
            options: Values by option name.

        Raises:
            AttnlabError: An unknown or missing option, or an invalid value.
        """
        check_options(f"attention '{self.name}'", self.options(), options)

    def build(self, channels: int, **options: Any) -> nn.Module:
        """Build the module for a number of channels.

        Args:
            channels: Channels C of the (B,C,H,W) maps.
            **options: Options of the class; checked by name and type.

        Returns:
            The module.

        Raises:
            AttnlabError: An unknown option, or an invalid value.
        """
        self.check(options)
        return self.module(channels, **{**self.presets, **options})


_specs: dict[str, AttentionSpec] = {}


def register_attention(
    name: str, *, paper: str = "", title: str = "", year: int | None = None, **presets: Any
) -> Callable[[ModuleClass], ModuleClass]:
    """Class decorator that registers a module under a name; can be stacked.

    Args:
        name: The name for YAML, command line and tables.
        paper: Link to the paper.
        title: Title of the paper.
        year: Year of the paper's first version.
        **presets: Preset values of the class's options.

    Returns:
        The decorator; it returns the class unchanged.

    Raises:
        AttnlabError: The name is taken, or a preset is not an option of the class.

    Examples:
        >>> @register_attention("wide_ela", paper="https://arxiv.org/abs/2403.01123", kernel_size=11)
        ... class WideEla(ELA): ...
    """

    def register(module: ModuleClass) -> ModuleClass:
        taken = _specs.get(name)
        if taken is not None and taken.module.__qualname__ != module.__qualname__:
            raise AttnlabError(f"The attention name '{name}' is already used by {taken.module.__qualname__}.")
        if "." in name:
            raise AttnlabError(
                f"An attention name must not contain dots (reserved for import paths), got '{name}'."
            )
        check_options(f"attention '{name}'", read_options(module, presets), presets)
        _specs[name] = AttentionSpec(name, module, paper, title, year, presets)
        return module

    return register


def list_attentions() -> list[str]:
    """All registered names, in the order of registration."""
    return list(_specs)


def get_attention(name: str) -> AttentionSpec:
    """The spec of a registered name or of an import path.

    Args:
        name: A registered name (``"ela_b"``), in any spelling (``"ELA-B"``), or an import path
            (``"my_pkg.my_module.MyAttention"``).

    Returns:
        The spec, with the registered spelling of the name.

    Raises:
        AttnlabError: There is no such name, or the path is not a module class.
    """
    name = known_name(name, _specs)
    if name in _specs:
        return _specs[name]
    if "." in name:
        return AttentionSpec(name, _import_class(name))
    raise unknown(
        "attention",
        name,
        _specs,
        "For a module of your own, give its import path: my_pkg.my_module.MyAttention.",
    )


def build_attention(
    name: str, channels: int, options: Mapping[str, Any] | None = None, **more_options: Any
) -> nn.Module:
    """Build an attention module by name.

    Args:
        name: A registered name or an import path.
        channels: Channels C of the (B,C,H,W) maps.
        options: Options of the module; ``get_attention(name).options()`` lists them.
        **more_options: Options as keywords.

    Returns:
        The module, (B,C,H,W) -> (B,C,H,W).

    Raises:
        AttnlabError: An unknown name or option, a value of the wrong type, or an option given twice.

    Examples:
        >>> build_attention("cbam", channels=64, reduction=8)
    """
    return get_attention(name).build(channels, **merged_options(options, more_options))


def merged_options(options: Mapping[str, Any] | None, more_options: Mapping[str, Any]) -> dict[str, Any]:
    """Options given as a mapping and as keywords, merged.

    Raises:
        AttnlabError: An option is in both.
    """
    twice = sorted(set(options or {}) & set(more_options))
    if twice:
        raise AttnlabError(f"The option '{twice[0]}' is given twice, in options and as a keyword.")
    return {**(options or {}), **more_options}


def _import_class(path: str) -> type[nn.Module]:
    module_path, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_path), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise AttnlabError(
            f"Cannot import the attention '{path}': {error}. Give a registered name ({', '.join(_specs)}) or "
            "the import path of an nn.Module class."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise AttnlabError(f"The attention '{path}' must be an nn.Module class, but is {found!r}.")
    return found
