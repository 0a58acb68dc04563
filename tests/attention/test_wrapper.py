"""What the wrapper survives, and the names that it keeps."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from functools import cache

import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.optim.swa_utils import AveragedModel
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import Bottleneck

from attnlab.attention import Attended, attach, attention_keys, attention_modules

PLACES = [
    ("resnet.block", "replace"),
    ("resnet.block", "rezero"),
    ("stage", "residual"),
    (["stage", "resnet.block", "conv1"], "rezero"),
]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32)


@pytest.fixture(params=PLACES, ids=str)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return attended(*request.param)


def attended(at: str | list[str] = "resnet.block", mode: str = "rezero") -> nn.Module:
    """A ResNet-18 with ELA, every number of which is drawn, running statistics too; one's own copy."""
    return copy.deepcopy(_attended(tuple([at] if isinstance(at, str) else at), mode))


@cache
def _attended(at: tuple[str, ...], mode: str) -> nn.Module:
    torch.manual_seed(0)
    network = resnet18(num_classes=10).eval()
    attach(network, "ela_b", at=list(at), mode=mode)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.mul_(0.9).add_(torch.rand_like(tensor), alpha=0.02)
    return network


@cache
def own_keys() -> list[str]:
    with torch.device("meta"):
        return list(resnet18().state_dict())


def test_the_sites_keys_are_the_networks_own(network: nn.Module) -> None:
    own, new = set(own_keys()), attention_keys(network)
    assert set(network.state_dict()) == own | new
    assert not own & new
    assert all(".attention." in key or key.endswith(".attention_alpha") for key in new)
    assert {key.partition(".attention")[0] for key in new} == {name for name, _ in attention_modules(network)}


def test_keys_keep_the_networks_order(network: nn.Module) -> None:
    new = attention_keys(network)
    assert [key for key in network.state_dict() if key not in new] == own_keys()


def test_a_state_dict_goes_round(network: nn.Module, x: torch.Tensor) -> None:
    twin = resnet18(num_classes=10).eval()
    sites = dict(attention_modules(network))
    attach(twin, "ela_b", at=list(sites), mode=next(iter(sites.values())).mode)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(x), network(x))


def test_weights_load_before_or_after_with_only_attention_keys_missing(x: torch.Tensor) -> None:
    plain = resnet18().eval()
    before = copy.deepcopy(plain)
    attach(before, "ela_b", mode="rezero")
    after = resnet18().eval()
    attach(after, "ela_b", mode="rezero")
    missing, unexpected = after.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == attention_keys(after)
    for network in (before, after):
        assert torch.equal(network(x), plain(x))


def test_weights_with_attention_load_into_the_plain_network(network: nn.Module) -> None:
    missing, unexpected = resnet18(num_classes=10).load_state_dict(network.state_dict(), strict=False)
    assert not missing
    assert set(unexpected) == attention_keys(network)


def test_missing_and_unexpected_keys_are_reported_under_the_networks_names(network: nn.Module) -> None:
    state = network.state_dict()
    del state["layer1.0.bn2.weight"]
    state["layer1.0.bn2.extra"] = torch.zeros(1)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["layer1.0.bn2.weight"], ["layer1.0.bn2.extra"])
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "layer1\.0\.bn2\.weight"\.'):
        network.load_state_dict(state)


def test_loading_leaves_the_callers_dict_alone(network: nn.Module) -> None:
    state = network.state_dict()
    keys = list(state)
    network.load_state_dict(state)
    assert list(state) == keys


def test_deepcopy_and_pickle_keep_outputs_and_hooks(network: nn.Module, x: torch.Tensor) -> None:
    saved = io.BytesIO()
    torch.save(network, saved)
    saved.seek(0)
    twins = [
        copy.deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        torch.load(saved, weights_only=False),
    ]
    for twin in twins:
        assert torch.equal(twin(x), network(x))
        assert list(twin.state_dict()) == list(network.state_dict())
        twin.load_state_dict(network.state_dict())


def test_traces_with_fx(network: nn.Module, x: torch.Tensor) -> None:
    traced = torch.fx.symbolic_trace(network)
    torch.testing.assert_close(traced(x), network(x))


def test_batch_norms_fold_into_convolutions(network: nn.Module, x: torch.Tensor) -> None:
    fused = fuse(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules()) or "conv1" in dict(
        attention_modules(network)
    )
    torch.testing.assert_close(fused(x), network(x), atol=1e-4, rtol=1e-4)


def test_a_site_fuses_by_name(x: torch.Tensor) -> None:
    network = attended()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is on its way to another package
        fused = torch.ao.quantization.fuse_modules(network, [["layer1.0.conv2", "layer1.0.bn2.site"]])
    assert isinstance(fused.layer1[0].bn2.site, nn.Identity)
    torch.testing.assert_close(fused(x), network(x), atol=1e-4, rtol=1e-4)


def test_sync_batch_norm_conversion_keeps_the_attention(network: nn.Module) -> None:
    sites = [name for name, _ in attention_modules(network)]
    keys = list(network.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in converted.modules())
    assert [name for name, _ in attention_modules(converted)] == sites
    assert list(converted.state_dict()) == keys


def test_averaged_copies_follow(x: torch.Tensor) -> None:
    network = attended()
    average = AveragedModel(network, avg_fn=lambda old, new, count: new, use_buffers=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    average.update_parameters(network)
    assert torch.equal(average(x), network(x))
    assert {f"module.{key}" for key in network.state_dict()} < set(average.state_dict())
    assert attention_keys(average) == {f"module.{key}" for key in attention_keys(network)}


def test_compiles_as_one_graph(x: torch.Tensor) -> None:
    torch.compiler.reset()
    network = attended(["layer4", "layer3.0.bn2"])
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x))


def test_exports(x: torch.Tensor) -> None:
    network = attended(["layer4", "layer3.0.bn2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own future
        exported = torch.export.export(network, (x,))
        torch.testing.assert_close(exported.module()(x), network(x))


def test_channels_last_gives_the_same_numbers(network: nn.Module, x: torch.Tensor) -> None:
    expected = network(x)
    result = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


def test_rezero_learns_its_scale_first(x: torch.Tensor) -> None:
    network = resnet18(num_classes=10)
    attach(network, "ela_b", mode="rezero")
    network(x).square().sum().backward()
    site = network.layer1[0].bn2
    assert site.attention_alpha.grad.any()
    assert site.attention.conv.weight.grad is not None
    assert set(site.new_parameters()) == {site.attention_alpha, *site.attention.parameters()}


def test_bottlenecks_before_a_convolution_keep_keys_too(x: torch.Tensor) -> None:
    network = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    plain = copy.deepcopy(network)
    attach(network, "eca", at="resnet.conv2", mode="rezero")
    assert set(network.state_dict()) - attention_keys(network) == set(plain.state_dict())
    assert torch.equal(network(x), plain(x))


def test_a_site_whose_own_child_is_called_site_keeps_its_key() -> None:
    inner = nn.Sequential()
    inner.add_module("site", nn.Conv2d(3, 3, 1))
    outer = nn.Sequential(Attended(inner, nn.Identity()))
    assert set(outer.state_dict()) == {"0.site.weight", "0.site.bias"}
    outer.load_state_dict(outer.state_dict())
