from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.modules.eca import ECA
from attnlab.attention.modules.mixed_local_channel import MixedLocalChannelAttention
from attnlab.attention.testing import AttentionProof
from attnlab.errors import AttnlabError
from tests.attention import naive


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Means over the cells of adaptive pooling, whose ends are rounded outwards."""

    def ends(cell: int, cells: int, length: int) -> slice:
        return slice(cell * length // cells, -(-(cell + 1) * length // cells))

    y = x.new_empty(*x.shape[:2], height, width)
    for i in range(height):
        for j in range(width):
            cell = x[:, :, ends(i, height, x.shape[2]), ends(j, width, x.shape[3])]
            y[:, :, i, j] = cell.sum(dim=(2, 3)) / cell[0, 0].numel()
    return y


def formula(mlca: MixedLocalChannelAttention, x: Tensor) -> Tensor:
    size, share, channels = mlca.local_size, mlca.local_weight, x.shape[1]
    cells, gate = resized(x, size, size), x.new_empty(*x.shape[:2], size, size)
    for image in range(len(x)):
        whole = cells[image].sum(dim=(1, 2)) / size**2
        whole_gate = naive.sigmoid(naive.conv(whole[None, None], mlca.conv_global)[0, 0])
        places = [(p, q) for p in range(size) for q in range(size)]
        sequence = torch.cat([cells[image, :, p, q] for p, q in places])
        cell_gates = naive.sigmoid(naive.conv(sequence[None, None], mlca.conv_local)[0, 0])
        for number, (p, q) in enumerate(places):
            cell_gate = cell_gates[number * channels : (number + 1) * channels]
            gate[image, :, p, q] = (1 - share) * whole_gate + share * cell_gate
    return x * resized(gate, x.shape[2], x.shape[3])


class TestMLCA(AttentionProof):
    name = "mlca"
    formula = staticmethod(formula)
    count = staticmethod({16: 2 * 3, 64: 2 * 3, 200: 2 * 5}.__getitem__)  # ECA's kernel, twice


class TestOfTwoByTwoCells(TestMLCA):
    options = MappingProxyType({"kernel_size": 5, "local_size": 2, "local_weight": 0.3})
    count = staticmethod(lambda channels: 2 * 5)


class TestOfOneCell(TestMLCA):
    options = MappingProxyType({"local_size": 1})
    symmetries = ("flip_height", "flip_width", "transpose", "permute_places")


@pytest.mark.parametrize("options", [{"local_size": 1}, {"local_weight": 0.0}])
def test_is_eca_where_there_is_no_locality(options: dict[str, float]) -> None:
    mlca, eca = MixedLocalChannelAttention(64, **options), ECA(64)  # type: ignore[arg-type]
    for conv in (mlca.conv_global, mlca.conv_local):
        conv.load_state_dict(eca.conv.state_dict())
    x = torch.randn(2, 64, 10, 5)  # equal cells: the mean of their means is the map's
    torch.testing.assert_close(mlca(x), eca(x))


def test_local_gates_alone_see_their_own_cell() -> None:
    mlca, x = MixedLocalChannelAttention(16, local_weight=1.0), torch.randn(1, 16, 10, 10)
    other = x.clone()
    other[..., 4:] += 1.0  # the third column of cells and all after it
    y, changed = mlca(x), mlca(other)
    # The last and the first channel see another cell; the others do not.
    torch.testing.assert_close(changed[:, 1:-1, :, :4], y[:, 1:-1, :, :4])
    assert not torch.allclose(changed[:, 0, :, :4], y[:, 0, :, :4])
    assert not torch.allclose(changed[:, -1, :, :4], y[:, -1, :, :4])


def test_without_weights_every_gate_is_a_half() -> None:
    mlca, x = MixedLocalChannelAttention(16), torch.randn(2, 16, 6, 3)
    for parameter in mlca.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(mlca(x), x / 2)


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(AttnlabError, match="local_size must be at least 1"):
        MixedLocalChannelAttention(16, local_size=0)
    with pytest.raises(AttnlabError, match=r"local_weight must be in 0\.\.1"):
        MixedLocalChannelAttention(16, local_weight=1.5)
    with pytest.raises(AttnlabError, match="kernel_size must be odd"):
        MixedLocalChannelAttention(16, kernel_size=4)
