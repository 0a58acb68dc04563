"""The average of the weights beside its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from attnlab.callbacks import RampedEMA
from attnlab.errors import AttnlabError


def test_the_average_is_the_formulas() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.register_buffer("count", torch.tensor(0))
    model = AveragedModel(layer, avg_fn=RampedEMA(0.9, ramp_steps=3).average, use_buffers=True)
    expected = None
    for n in range(6):
        with torch.no_grad():
            layer.weight.fill_(n**2)
        layer.count += 1
        model.update_parameters(layer)
        decay = 0.9 * (1 - math.exp(-n / 3))
        # The first update takes the weights as they are.
        expected = n**2 if expected is None else decay * expected + (1 - decay) * n**2
        assert model.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert model.module.count.dtype == torch.int64


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"decay": -0.1}, {"ramp_steps": 0}])
def test_values_out_of_range(options: dict) -> None:
    with pytest.raises(AttnlabError, match=next(iter(options))):
        RampedEMA(**options)
