"""Operations that several attention modules share, written for memory traffic: each beside its formula."""

from attnlab.attention.kernels.ela import ela
from attnlab.attention.kernels.strips import gate_strips, lay_out_like, strip_means

__all__ = ["ela", "gate_strips", "lay_out_like", "strip_means"]
