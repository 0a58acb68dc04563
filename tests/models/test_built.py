"""What builders return, and building without memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attnlab.errors import AttnlabError
from attnlab.models.built import BuiltNetwork, without_values


def test_nobody_publishes_weights_unless_it_is_said() -> None:
    with pytest.raises(AttnlabError, match=r"use --model\.weights none"):
        BuiltNetwork(nn.Identity()).imagenet()
    assert BuiltNetwork(nn.Identity(), imagenet=dict).imagenet() == {}


def test_what_reads_no_value_takes_no_memory() -> None:
    assert without_values(lambda: nn.Linear(3, 4)).weight.is_meta


def reads_a_value() -> nn.Module:
    layer = nn.Linear(3, 4)
    if float(layer.weight.detach().abs().max()) > 9:
        raise AssertionError
    return layer


def test_what_reads_values_is_built_for_real() -> None:
    assert not without_values(reads_a_value).weight.is_meta
    assert torch.empty(1).device.type == "cpu"


def test_what_cannot_be_built_says_so_itself() -> None:
    def refuse() -> nn.Module:
        raise AttnlabError("as it is")

    with pytest.raises(AttnlabError, match="as it is"):
        without_values(refuse)
