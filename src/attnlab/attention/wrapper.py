"""The wrapper that replaces a site, keeping its state-dict keys.

``Attended`` calls the site and then the attention (or the other way round), so ``print(network)`` shows it,
and ``deepcopy``, ``pickle``, ``torch.fx``, ``torch.export``, ``torch.compile`` and SyncBatchNorm conversion
see plain modules. The state dict has no level for the wrapper: the site's tensors keep their keys, the new
ones are ``<site>.attention.*`` and, in mode ``rezero``, ``<site>.attention_alpha``. ``named_parameters()``
and ``named_modules()`` do show the level, as ``<site>.site.*``; `public_modules` and `attention_modules`
speak the state dict's names.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from attnlab.errors import AttnlabError, unknown

Mode = Literal["replace", "residual", "rezero"]
MODES: tuple[str, ...] = get_args(Mode)


class Attended(nn.Module):
    """A module of a network with attention on its map.

    Public attributes that the wrapper does not have are read from the site, for networks that access their
    modules' attributes (``self.bn2.weight``, ``decoder.out_channels``). Attributes that are set stay on the
    wrapper.

    Args:
        site: The module of the network.
        attention: The attention module, (B,C,H,W) -> (B,C,H,W).
        mode: ``replace``: y = A(x). ``residual``: y = x + A(x). ``rezero``: y = x + a(A(x) - x), with a
            learned scalar a that starts at 0.
        before: Apply attention to the site's first input instead of its output.
        axis: Axis of the map's channels: 1, or 3 for maps (B,H,W,C), which the attention gets as (B,C,H,W).

    Raises:
        AttnlabError: The mode is unknown, or the site has a child named ``attention``, whose keys would
            clash.
    """

    def __init__(
        self,
        site: nn.Module,
        attention: nn.Module,
        mode: Mode = "replace",
        before: bool = False,
        axis: int = 1,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise unknown("attention mode", mode, MODES)
        if any(_is_own(key) for key in site.state_dict()):
            raise AttnlabError(
                f"The site ({type(site).__name__}) already has a child 'attention', whose keys would clash "
                "with the new ones: choose a module inside it or around it."
            )
        self.site = site
        self.attention = attention
        self.mode = mode
        self.before = before
        self.axis = axis
        self._load_prefix = ""
        if mode == "rezero":
            like = next(chain(attention.parameters(), site.parameters()), torch.empty(0))
            # One element, not zero dimensions: FSDP takes no scalars.
            self.attention_alpha = nn.Parameter(torch.zeros(1, device=like.device, dtype=like.dtype))
        self.register_state_dict_post_hook(_drop_level)
        self.register_load_state_dict_pre_hook(_add_level)
        self.register_load_state_dict_post_hook(_report_without_level)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The site's inputs -> its output, with attention."""
        if self.before:
            return self.site(self.attend(args[0]), *args[1:], **kwargs)
        return self.attend(self.site(*args, **kwargs))

    def attend(self, x: Tensor) -> Tensor:
        """The attention on a map, in this wrapper's mode: of any shape -> the same."""
        if self.axis == 3:
            attended = self.attention(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # to (B,C,H,W) and back
        else:
            attended = self.attention(x)
        if self.mode == "residual":
            return x + attended
        if self.mode == "rezero":
            return x + self.attention_alpha.to(x.dtype) * (attended - x)
        return attended

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Private names are protocols (__deepcopy__, marks of tools): forwarding them would make the
            # wrapper pass for the site. During unpickling there is no site yet.
            site = self.__dict__.get("_modules", {}).get("site")
            if site is None or name.startswith("_"):
                raise
            return getattr(site, name)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are the attention's, not the site's."""
        yield from self.attention.parameters()
        if self.mode == "rezero":
            yield self.attention_alpha

    def new_keys(self) -> list[str]:
        """The state-dict keys, relative to the site, that are the attention's."""
        keys = [f"attention.{key}" for key in self.attention.state_dict()]
        return [*keys, "attention_alpha"] if self.mode == "rezero" else keys

    def extra_repr(self) -> str:
        """Mode and side, for ``print(network)``."""
        return f"mode={self.mode}{', before' * self.before}{', (B,H,W,C)' * (self.axis == 3)}"


def _is_own(key: str) -> bool:
    """Whether a key in an ``Attended`` is the attention's, not the site's."""
    return key.startswith("attention.") or key == "attention_alpha"


def _drop_level(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    """State-dict hook: ``<prefix>site.weight`` becomes ``<prefix>weight``, in the same order."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        state_dict[prefix + key.removeprefix(prefix).removeprefix("site.")] = state_dict.pop(key)


def _add_level(
    module: Attended, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *unused: Any
) -> None:
    """Load hook: ``<prefix>weight`` becomes ``<prefix>site.weight``; torch hands each module its own copy."""
    module._load_prefix = prefix
    for key in [key for key in state_dict if key.startswith(prefix)]:
        inner = key.removeprefix(prefix)
        if not _is_own(inner):
            state_dict[f"{prefix}site.{inner}"] = state_dict.pop(key)


def _report_without_level(module: Attended, incompatible_keys: Any) -> None:
    """Load hook: report missing and unexpected keys under their state-dict names."""
    prefix = module._load_prefix
    for keys in (incompatible_keys.missing_keys, incompatible_keys.unexpected_keys):
        keys[:] = [
            prefix + key.removeprefix(f"{prefix}site.") if key.startswith(f"{prefix}site.") else key
            for key in keys
        ]


def public_modules(network: nn.Module, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """All modules of a network under their state-dict names.

    Like ``named_modules()``, but an ``Attended`` stands for its site, whose children follow without a level
    between, and the modules inside an attention are left out.

    Args:
        network: The network, with or without attention.
        remove_duplicate: Yield a module with several names once, under the first.

    Yields:
        Name and module, the network itself first, under ``""``.
    """
    seen: set[nn.Module] = set()

    def walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if remove_duplicate and module in seen:
            return
        seen.add(module)
        yield name, module
        holder = module.site if isinstance(module, Attended) else module
        for child_name, child in holder._modules.items():  # named_children() would leave out duplicates
            if child is not None:
                yield from walk(child, f"{name}.{child_name}" if name else child_name)

    yield from walk(network, "")


def attention_modules(network: nn.Module) -> Iterator[tuple[str, Attended]]:
    """The sites of a network that have attention.

    Args:
        network: A network after `attnlab.attention.attach`.

    Yields:
        The site's name and its wrapper, whose ``attention`` is the module.

    Examples:
        >>> new = {p for _, site in attention_modules(network) for p in site.new_parameters()}
    """
    for name, module in public_modules(network):
        if isinstance(module, Attended):
            yield name, module


def attention_keys(network: nn.Module) -> set[str]:
    """The state-dict keys that attaching added to a network.

    A checkpoint of the network without attention lacks these keys and no others:

        missing, unexpected = network.load_state_dict(weights, strict=False)
        assert not unexpected and set(missing) <= attention_keys(network)

    Args:
        network: The network with attention.

    Returns:
        The keys.
    """
    return {
        f"{name}.{key}"
        for name, module in public_modules(network, remove_duplicate=False)
        if isinstance(module, Attended)
        for key in module.new_keys()
    }
