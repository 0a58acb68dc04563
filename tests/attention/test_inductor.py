"""Every module under torch.compile with its own compiler: minutes, so for a night."""

from __future__ import annotations

import shutil

import pytest
import torch

from attnlab.attention import build_attention, list_attentions

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: g++"),
]


# Each layout and each kind of shape with every module; all four pairs would take twice the minutes.
@pytest.mark.parametrize(
    ("layout", "dynamic"),
    [(torch.contiguous_format, False), (torch.channels_last, True)],
    ids=["static", "dynamic_channels_last"],
)
@pytest.mark.parametrize("name", [name for name in list_attentions() if name != "none"])
def test_trains_compiled_as_it_does_plain(name: str, layout: torch.memory_format, dynamic: bool) -> None:
    """Output, gradient of the map and gradients of all parameters."""
    torch.compiler.reset()
    torch.manual_seed(0)
    module = build_attention(name, 64)
    compiled = torch.compile(module, dynamic=dynamic)
    for size in ((8, 8), (6, 10)) if dynamic else ((8, 8),):
        x = torch.randn(2, 64, *size).to(memory_format=layout)
        weight = torch.randn_like(x)
        found = []
        for network in (module, compiled):
            network.zero_grad()
            of_network = x.clone().requires_grad_()
            y = network(of_network)
            (y * weight).sum().backward()
            gradients = {key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None}
            found.append((y.detach(), of_network.grad, gradients))
        # A bias in front of a normalisation has a gradient of nothing but rounding.
        torch.testing.assert_close(found[1], found[0], atol=5e-3, rtol=1e-3)
