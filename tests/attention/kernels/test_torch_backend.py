"""The backend's operations against sums written out, in both layouts and for any strides.

The small layers between means and gates are proven through the whole operation, in ``test_ela.py``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnlab.attention.kernels import torch_backend
from tests.attention.kernels.definitions import LAYOUTS, SHAPES, expected, values


def found(v: dict[str, Tensor]) -> dict[str, Tensor]:
    gates = v["gate_h"], v["gate_w"]
    mean_h, mean_w = torch_backend.means(v["x"])
    dgate_h, dgate_w = torch_backend.gate_gradients(v["dy"], v["x"], gates)
    return {
        "mean_h": mean_h,
        "mean_w": mean_w,
        "y": torch_backend.gate(v["x"], gates),
        "dgate_h": dgate_h,
        "dgate_w": dgate_w,
        "dx": torch_backend.input_gradient(v["dy"], gates, (v["dmean_h"], v["dmean_w"])),
    }


@pytest.mark.parametrize("block", [1, 2**9, 2**20])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_raw_operations_are_their_definitions(
    shape: tuple[int, ...], layout: torch.memory_format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "BLOCK_BYTES", block)
    v = values(shape)
    v |= {name: v[name].to(memory_format=layout) for name in ("x", "dy")}
    result = found(v)
    torch.testing.assert_close(result, expected(v), rtol=1e-10, atol=1e-10)
    for name in ("y", "dx"):
        assert result[name].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_raw_operations_round_once(dtype: torch.dtype, layout: torch.memory_format) -> None:
    v = values((2, 6, 40, 33), dtype)
    v |= {name: v[name].to(memory_format=layout) for name in ("x", "dy")}
    v |= {name: v[name].float() for name in v if name not in ("x", "dy")}
    result, exact = found(v), expected(v)
    for name, tensor in result.items():
        assert tensor.dtype == (dtype if name in ("y", "dx") else torch.float32)
        precision = torch.finfo(tensor.dtype).eps
        error = (tensor - exact[name]).norm() / exact[name].norm()
        assert error <= (precision if tensor.dtype != torch.float32 else 1e-6)


def test_raw_operations_take_any_strides() -> None:
    v = values((2, 6, 5, 4))
    maps = {
        "every other channel": torch.randn(2, 12, 5, 4)[:, ::2],
        "some channels, innermost": torch.randn(2, 5, 4, 12)[..., :6].permute(0, 3, 1, 2),
        "transposed": torch.randn(2, 6, 4, 5).transpose(2, 3),
        "expanded": torch.randn(2, 6, 1, 1).expand(2, 6, 5, 4),
        "cropped": torch.randn(2, 6, 9, 9)[:, :, 2:7, 3:7],
    }
    for x in maps.values():
        for dy in maps.values():
            given = v | {"x": x.double(), "dy": dy.double()} if x is dy else v | {"x": x, "dy": dy}
            given |= {name: tensor.to(given["x"].dtype) for name, tensor in given.items()}
            torch.testing.assert_close(found(given), expected(given), check_dtype=False, rtol=1e-4, atol=1e-4)


def test_blocks_cover_every_row_of_every_image_once() -> None:
    for shape in [(7, 5, 4, 3), (2, 300, 100, 8), (1, 1, 2**19, 1), (9, 1, 1, 1)]:
        seen = torch.zeros(shape[:2], dtype=torch.int64)
        for images, rows in torch_backend._blocks(torch.empty(1).expand(shape)):
            seen[images, rows] += 1
        assert bool((seen == 1).all())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_strips_of_a_map_lie_as_the_map_does(layout: torch.memory_format) -> None:
    for strip in torch_backend.means(torch.randn(2, 6, 5, 4).to(memory_format=layout)):
        assert strip.shape[:2] == (2, 6)
        assert strip.transpose(1, 2).is_contiguous() == (layout == torch.channels_last)
