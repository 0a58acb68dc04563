"""Attention modules for CNNs, and their placement in any network; plain torch.

The imports of module files below are the registry's contents: a name exists because its file is listed here.
"""

from attnlab.attention.cbam import CBAM
from attnlab.attention.coordinate import CoordinateAttention
from attnlab.attention.eca import ECA
from attnlab.attention.ela import ELA
from attnlab.attention.none import NoAttention
from attnlab.attention.registry import (
    AttentionSpec,
    build_attention,
    get_attention,
    list_attentions,
    register_attention,
)
from attnlab.attention.shuffle import ShuffleAttention
from attnlab.attention.squeeze_excite import SqueezeExcite

__all__ = [
    "CBAM",
    "ECA",
    "ELA",
    "AttentionSpec",
    "CoordinateAttention",
    "NoAttention",
    "ShuffleAttention",
    "SqueezeExcite",
    "build_attention",
    "get_attention",
    "list_attentions",
    "register_attention",
]
