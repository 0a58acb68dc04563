from __future__ import annotations

import warnings
from types import MappingProxyType

import pytest
import torch
from timm.layers.gather_excite import GatherExcite as TimmGatherExcite
from torch import Tensor, nn

from attnlab.attention import build_attention
from attnlab.attention.modules.gather_excite import GatherExcite
from attnlab.attention.modules.squeeze_excite import SqueezeExcite
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive
from tests.attention.exporting import free_pooling


def window_means(x: Tensor, extent: int) -> Tensor:
    """The mean over the window around every e-th position, as far as it lies in the map."""
    height, width = x.shape[2:]
    rows = []
    for i in range(0, height, extent):
        row = []
        for j in range(0, width, extent):
            window = x[:, :, max(0, i - extent + 1) : i + extent, max(0, j - extent + 1) : j + extent]
            row.append(window.sum(dim=(2, 3)) / window.shape[2:].numel())
        rows.append(torch.stack(row, dim=2))
    return torch.stack(rows, dim=2)


def resized(x: Tensor, size: int) -> Tensor:
    """Means over size x size cells: all positions that a cell touches."""
    height, width = x.shape[2:]
    y = x.new_zeros(*x.shape[:2], size, size)
    for i in range(size):
        for j in range(size):
            top, bottom = i * height // size, -(-(i + 1) * height // size)
            left, right = j * width // size, -(-(j + 1) * width // size)
            y[:, :, i, j] = x[:, :, top:bottom, left:right].mean(dim=(2, 3))
    return y


def gathered(ge: GatherExcite, x: Tensor) -> Tensor:
    convs = [layer for layer in ge.gather.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in ge.gather.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not convs:
        return window_means(x, ge.extent) if ge.extent else x.mean(dim=(2, 3), keepdim=True)
    if not ge.extent:
        x = resized(x, convs[0].kernel_size[0])
        x = torch.einsum("bcij,cij->bc", x, convs[0].weight[:, 0])[:, :, None, None]
        return naive.batch_norm(x, norms[0])
    for step, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        x = naive.batch_norm(naive.conv(naive.relu(x) if step else x, conv), norm)
    return x


def formula(ge: GatherExcite, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    summary = gathered(ge, x)
    mixing = [layer for layer in ge.excite if isinstance(layer, nn.Conv2d)]
    if mixing:
        down, up = mixing
        summary = naive.relu(summary) if list(ge.gather.parameters()) else summary
        summary = naive.conv(naive.relu(naive.conv(summary, down)), up)
    gate, y = naive.sigmoid(summary), torch.empty_like(x)
    for i in range(height):
        for j in range(width):
            nearest = gate[:, :, i * gate.shape[2] // height, j * gate.shape[3] // width]
            y[:, :, i, j] = x[:, :, i, j] * nearest
    return y


def bottleneck(channels: int) -> int:
    return 2 * channels * (channels // 16) + channels // 16 + channels


class Extents(AttentionProof):
    @free_pooling
    def test_exports(self) -> None:
        # torch.export takes every size to be always or never 1, and a map that is not larger than the extent
        # is gathered to one position. Larger ones share one program.
        module = self.build().eval()
        extent = module.extent
        size = {2: torch.export.Dim("height", min=extent + 1), 3: torch.export.Dim("width", min=extent + 1)}
        x = torch.randn(2, 16, 2 * extent + 2, extent + 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own future
            exported = torch.export.export(module, (x,), dynamic_shapes=(size,)).module()
        for other in (x, torch.randn(2, 16, extent + 1, 3 * extent)):
            torch.testing.assert_close(exported(other), module(other))


class TestGEMinus(AttentionProof):
    name = "ge_minus"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 0)
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places", "permute_channels")


class TestGEMinusWithExtent(Extents, TestGEMinus):
    options = MappingProxyType({"extent": 2})
    symmetries = ("transpose", "permute_channels")


class TestGE(Extents):
    name = "ge"
    formula = staticmethod(formula)
    count = staticmethod(lambda channels: 3 * (9 * channels + 2 * channels))


class TestGEOfTheWholeMap(AttentionProof):
    name = "ge"
    formula = staticmethod(formula)
    options = MappingProxyType({"extent": 0, "size": 6})
    count = staticmethod(lambda channels: 6 * 6 * channels + 2 * channels)


class TestGEPlus(TestGE):
    name = "ge_plus"
    count = staticmethod(lambda channels: 3 * (9 * channels + 2 * channels) + bottleneck(channels))


def test_without_parameters_a_constant_map_is_gated_by_itself() -> None:
    x = torch.randn(2, 8, 1, 1).expand(2, 8, 7, 9)
    for extent in (0, 2, 4, 8):
        torch.testing.assert_close(GatherExcite(8, extent=extent)(x), x * x.sigmoid())


def test_gathers_from_the_whole_map_with_a_kernel_of_its_size() -> None:
    ge = GatherExcite(8, learned=True, size=5).eval()
    (weight,) = [layer.weight for layer in ge.gather.modules() if isinstance(layer, nn.Conv2d)]
    x = torch.randn(2, 8, 5, 5)
    gate = ((x * weight[:, 0]).sum(dim=(2, 3), keepdim=True) / (1 + 1e-5) ** 0.5).sigmoid()
    torch.testing.assert_close(ge(x), x * gate)


def test_the_mean_of_the_whole_map_through_a_bottleneck_is_squeeze_and_excitation() -> None:
    ge, se = GatherExcite(64, bottleneck=True), SqueezeExcite(64)
    down, _, up = ge.excite
    for layer, other in ((down, se.reduce), (up, se.expand)):
        nn.init.normal_(layer.weight)
        other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 64, 6, 5)
    torch.testing.assert_close(ge(x), se(x))


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
def test_without_parameters_it_is_timms(extent: int) -> None:
    theirs = TimmGatherExcite(16, extent=extent, use_mlp=False)
    for size in [(14, 14), (9, 23), (3, 1)]:
        x = torch.randn(2, 16, *size)
        torch.testing.assert_close(GatherExcite(16, extent=extent)(x), theirs(x))


@pytest.mark.parametrize("options", [{"extent": 3}, {"extent": 1}, {"extent": -2}, {"size": 0}])
def test_refuses_extents_that_no_convolutions_have(options: dict[str, int]) -> None:
    with pytest.raises(AttnlabError, match=next(iter(options))):
        build_attention("ge", 8, **options)
