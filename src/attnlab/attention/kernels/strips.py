"""Strip means of a map, and gates that scale its rows and columns."""

from __future__ import annotations

from torch import Tensor


def strip_means(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of every row and of every column of a map.

    Args:
        x: Map (B,C,H,W).

    Returns:
        The mean over the width (B,C,H) and the mean over the height (B,C,W).
    """
    return x.mean(dim=3), x.mean(dim=2)


def gate_strips(x: Tensor, gate_h: Tensor, gate_w: Tensor) -> Tensor:
    """Scale every row and every column of a map: ``y[b,c,i,j] = x[b,c,i,j] · gate_h[b,c,i] · gate_w[b,c,j]``.

    Args:
        x: Map (B,C,H,W).
        gate_h: Gates of the rows (B,C,H); they are taken in the dtype of the map.
        gate_w: Gates of the columns (B,C,W), likewise.

    Returns:
        The gated map, in the dtype and the memory format of ``x``.
    """
    return x * gate_h.to(x.dtype).unsqueeze(3) * gate_w.to(x.dtype).unsqueeze(2)
