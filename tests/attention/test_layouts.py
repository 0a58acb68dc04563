"""Where the channels of a map are, on networks that make it hard to tell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention import Site, attach, attention_modules
from attnlab.errors import AttnlabError


class Norm(nn.Module):
    """A normalisation of the last axis whose class says nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + 1).sqrt()


class Windows(nn.Module):
    """(B,H,W,C) -> windows (BN,4,4,C)."""

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        cells = x.reshape(batch, height // 4, 4, width // 4, 4, channels)
        return cells.transpose(2, 3).reshape(-1, 4, 4, channels)


class Likeness(nn.Module):
    """(B,H,W,C) -> similarities (B,2,N,N) of two heads."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.flatten(1, 2).unflatten(2, (2, -1)).transpose(1, 2)
        return (heads @ heads.transpose(2, 3)).softmax(dim=3)


class Mixed(nn.Module):
    """A stem (B,C,H,W), a body (B,H,W,C), and what is neither.

    Args:
        channels: Channels of all maps.
        norm: The body's normalisation.
        size: The only size of image that is taken; None for any.
    """

    def __init__(self, channels: int = 8, norm: nn.Module | None = None, size: tuple[int, int] | None = None):
        super().__init__()
        self.size = size
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), nn.BatchNorm2d(channels))
        self.norm = norm or nn.LayerNorm(channels)
        self.fc = nn.Linear(channels, channels)
        self.body = nn.Sequential(self.norm, self.fc)
        self.act = nn.GELU()
        self.windows, self.likeness, self.tokens = Windows(), Likeness(), nn.Identity()
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.size not in (None, tuple(x.shape[2:])):
            raise ValueError(f"takes {self.size} only")
        x = self.act(self.body(self.stem(x).permute(0, 2, 3, 1)))
        self.windows(x), self.likeness(x), self.tokens(x.flatten(1, 2))
        return self.head(x.mean(dim=(1, 2)))


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (48, 16)], ids=str)
@pytest.mark.parametrize("channels", [8, 16])  # 16 is the side of a map of 64 x 64, too
@pytest.mark.parametrize("norm", [None, Norm()], ids=["layer_norm", "unknown"])
def test_channels_are_the_axis_that_stays(size: tuple[int, int], channels: int, norm: nn.Module) -> None:
    network = Mixed(channels, norm)
    sites = attach(network, "eca", at=["stem", "body", "fc", "act"], example=torch.zeros(1, 3, *size))
    assert [(site.name, site.channels, site.axis) for site in sites] == [
        ("stem", channels, 1),
        *((name, channels, 3) for name in ("body", "fc", "act")),
    ]
    network(torch.randn(2, 3, *size)).sum().backward()


def test_attention_gets_channels_first_and_the_network_what_it_gave() -> None:
    network, x = Mixed().eval(), torch.randn(2, 3, 32, 48)
    attach(network, "ca", at=["body", "fc"], mode="residual")
    seen: dict[str, Tensor] = {}
    network.body.site.register_forward_hook(lambda module, args, output: seen.update(map=output))
    network.body.register_forward_hook(lambda module, args, output: seen.update(attended=output))
    network(x)
    first = seen["map"].permute(0, 3, 1, 2).contiguous()
    expected = first + network.body.attention(first)
    torch.testing.assert_close(seen["attended"].permute(0, 3, 1, 2), expected)
    assert "(B,H,W,C)" in str(network)
    assert all(site.axis == 3 for _, site in attention_modules(network))


def test_a_site_before_a_module_knows_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.attention import placements

    monkeypatch.setattr(placements, "_placements", dict(placements._placements))

    @placements.register_placement("before")
    def before(run: placements.Observation) -> list[placements.Target]:
        """Before the activation."""
        return [placements.Target("act", before=True)]

    assert attach(Mixed(), "eca", at="before") == [Site("act", 8, 3, before=True, axis=3)]


def test_a_network_of_one_size_is_told_by_its_modules() -> None:
    sites = attach(Mixed(size=(224, 224)), "eca", at=["stem", "body", "act"])
    assert [(site.channels, site.axis) for site in sites] == [(8, 1), (8, 3), (8, 3)]


def test_what_nothing_tells_is_an_error() -> None:
    """One size of image, as many channels as rows, and a conversation of both layouts."""
    network = Mixed(channels=16, size=(64, 64))
    example = torch.zeros(1, 3, 64, 64)
    with pytest.raises(
        AttnlabError, match=r"'act' \(GELU\) gives a tensor of shape \(1, 16, 16, 16\), whose"
    ):
        attach(network, "eca", at="act", example=example)
    assert attach(network, "eca", at="stem.0", example=example) == [Site("stem.0", 16, 3)]


@pytest.mark.parametrize("name", ["windows", "likeness"])
def test_four_axes_make_no_map(name: str) -> None:
    network = Mixed()
    with pytest.raises(
        AttnlabError, match=rf"'{name}' .* whose axes do not follow .* Modules with maps: stem"
    ):
        attach(network, "eca", at=name)
    assert not list(attention_modules(network))


def test_tokens_are_no_map() -> None:
    with pytest.raises(AttnlabError, match=r"shape \(1, 3136, 8\), as the tokens \(B, N, C\) of a tran"):
        attach(Mixed(), "eca", at="tokens")


class BothWays(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        self.act(self.stem(x))
        return super().forward(x)


def test_a_module_called_in_both_layouts_is_an_error() -> None:
    with pytest.raises(AttnlabError, match=r"'act' .* maps \(B, C, H, W\) and with maps \(B, H, W, C\)"):
        attach(BothWays(), "eca", at="act")


class Resizes(Mixed):
    """Short side 64, long side at most 80, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = Norm()
        self.stem.append(self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        scale = min(64 / min(x.shape[2:]), 80 / max(x.shape[2:]))
        size = [round(side * scale / 16) * 16 for side in x.shape[2:]]
        return super().forward(nn.functional.interpolate(x, size))


@pytest.mark.parametrize("size", [(64, 64), (60, 80)], ids=str)
def test_a_network_that_resizes_is_told_by_its_modules(size: tuple[int, int]) -> None:
    sites = attach(Resizes(), "eca", at=["stem.2", "body"], example=torch.zeros(1, 3, *size))
    assert [(site.channels, site.axis) for site in sites] == [(8, 1), (8, 3)]


def test_a_map_of_one_position_has_its_channels_where_it_is_not_one() -> None:
    first, last = nn.Unflatten(1, (8, 1, 1)), nn.Unflatten(1, (1, 1, 8))
    network = nn.Sequential(first, nn.GELU(), nn.Flatten(), last, nn.Sigmoid())
    sites = attach(network, "se", at=["1", "4"], example=torch.zeros(1, 8))
    assert [(site.channels, site.axis) for site in sites] == [(8, 1), (8, 3)]


def test_convolutions_alone_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.attention import placement

    runs, observe = [], placement.observe
    monkeypatch.setattr(placement, "observe", lambda *args, **how: runs.append(how) or observe(*args, **how))
    attach(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), "eca", at="2")
    assert len(runs) == 1


def test_images_in_a_list_are_stretched_too() -> None:
    class Detector(Mixed):
        def forward(self, images: list[Tensor]) -> Tensor:
            return super().forward(torch.stack(images))

    (site,) = attach(Detector(16), "eca", at="act", example=([torch.zeros(3, 64, 64)],))
    assert (site.channels, site.axis) == (16, 3)
