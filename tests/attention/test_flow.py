from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.flow import Flow, maker_of, mark, origins_of


def marked(number: int) -> Tensor:
    x = torch.zeros(1, 4, 6, 6)
    mark(x, number)
    return x


def test_origins_pass_through_what_mixes_nothing_and_end_at_weights() -> None:
    with Flow():
        x, y = marked(1), marked(2)
        both = torch.cat([F.interpolate(x, scale_factor=2).relu(), F.pad(y, (0, 6, 0, 6))], dim=1)
        outputs = {"a": [both.chunk(2, dim=1)[0].flatten(2)], "b": F.conv2d(x, torch.ones(2, 4, 1, 1))}
        assert origins_of(both) == origins_of(outputs) == {1, 2}
        assert not origins_of(outputs["b"])
        assert not origins_of(nn.Linear(6, 2)(x))
        assert not origins_of(x @ y)


def test_the_maker_is_known_while_nothing_is_done_to_its_output() -> None:
    with Flow():
        x = marked(1)
        assert maker_of(nn.Identity()(x)) == 1
        assert maker_of(x + 1) is None
        F.relu(x, inplace=True)
        assert maker_of(x) is None
        assert origins_of(x) == {1}
