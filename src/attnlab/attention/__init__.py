"""Attention modules for CNNs, and their placement in any network; plain torch.

The imports of module files below are the registry's contents: a name exists because its file is listed here.
"""

from attnlab.attention.cbam import CBAM
from attnlab.attention.coordinate import CoordinateAttention
from attnlab.attention.eca import ECA
from attnlab.attention.ela import ELA
from attnlab.attention.none import NoAttention
from attnlab.attention.placement import Site, attach, describe
from attnlab.attention.placements import list_placements, register_placement
from attnlab.attention.registry import (
    AttentionSpec,
    build_attention,
    get_attention,
    list_attentions,
    register_attention,
)
from attnlab.attention.shuffle import ShuffleAttention
from attnlab.attention.squeeze_excite import SqueezeExcite
from attnlab.attention.wrapper import Attended, Mode, attention_keys, attention_modules

__all__ = [
    "CBAM",
    "ECA",
    "ELA",
    "Attended",
    "AttentionSpec",
    "CoordinateAttention",
    "Mode",
    "NoAttention",
    "ShuffleAttention",
    "Site",
    "SqueezeExcite",
    "attach",
    "attention_keys",
    "attention_modules",
    "build_attention",
    "describe",
    "get_attention",
    "list_attentions",
    "list_placements",
    "register_attention",
    "register_placement",
]
