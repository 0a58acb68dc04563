"""Strip operations by their definitions: sums written out, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 3, 4, 5), (1, 8, 1, 1), (3, 1, 4, 4), (2, 5, 1, 6), (2, 16, 40, 33), (0, 4, 3, 2)]


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Maps x and dy, and strips of both directions by name."""
    torch.manual_seed(0)
    batch, channels, height, width = shape
    strip = {"h": (batch, channels, height), "w": (batch, channels, width)}
    made = {name: torch.randn(shape) for name in ("x", "dy")}
    made |= {f"{name}_{side}": torch.randn(strip[side]) for name in ("gate", "dmean") for side in strip}
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def expected(v: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each operation gives, by its definition, in float64."""
    x, dy, g_h, g_w, d_h, d_w = (
        v[name].double() for name in ("x", "dy", "gate_h", "gate_w", "dmean_h", "dmean_w")
    )
    height, width = x.shape[2:]
    both = torch.einsum("bch,bcw->bchw", g_h, g_w)
    return {
        "mean_h": torch.einsum("bchw->bch", x) / width,
        "mean_w": torch.einsum("bchw->bcw", x) / height,
        "y": x * both,
        "dgate_h": torch.einsum("bchw,bchw,bcw->bch", dy, x, g_w),
        "dgate_w": torch.einsum("bchw,bchw,bch->bcw", dy, x, g_h),
        "dx": dy * both + d_h[..., None] / width + d_w[:, :, None] / height,
    }
