"""Attention modules for CNNs, and their placement in any network; plain torch.

The modules are the files of `attnlab.attention.modules`; importing them below fills the registry.
"""

from attnlab.attention import modules
from attnlab.attention.modules.ela import ELA
from attnlab.attention.placement import Site, attach, describe
from attnlab.attention.placements import list_placements, register_placement
from attnlab.attention.registry import (
    AttentionSpec,
    build_attention,
    get_attention,
    list_attentions,
    register_attention,
)
from attnlab.attention.wrapper import Attended, Mode, attention_keys, attention_modules

__all__ = [
    "ELA",
    "Attended",
    "AttentionSpec",
    "Mode",
    "Site",
    "attach",
    "attention_keys",
    "attention_modules",
    "build_attention",
    "describe",
    "get_attention",
    "list_attentions",
    "list_placements",
    "modules",
    "register_attention",
    "register_placement",
]
