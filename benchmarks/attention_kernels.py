"""ELA by its formula, by ``torch.compile`` of the formula, and as one operation, side by side.

Run: ``python benchmarks/attention_kernels.py [--device cpu|cuda] [--rounds 15] [--network]``

* **The module alone**: forward, and forward + backward, contiguous and channels_last; the memory that
  autograd keeps beside the input. On a GPU also the ratio to the time of two reads and one write of the map
  (forward) and of five reads and two writes (both) at the bandwidth of a copy measured in the same rounds.
* **In a network** (``--network``): a training step without ELA, with the formula and with the one operation.

All sides take turns, round by round, so that other load on the machine meets them alike. Times are medians;
a ratio is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import copy
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from paired import interleaved
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet50

from attnlab.analysis.profile import saved_bytes
from attnlab.attention import attach, attention_modules, build_attention
from attnlab.attention.kernels.choice import has_triton

SIZES = ["ela_t", "ela_b", "ela_s", "ela_l"]
SHAPES = {
    "cpu": [(16, 64, 56, 56), (16, 256, 56, 56), (8, 2048, 16, 16)],
    "cuda": [(64, 256, 56, 56), (64, 512, 28, 28), (16, 2048, 32, 32)],
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Naive(nn.Module):
    """ELA as its formula reads: what one would paste."""

    def __init__(self, ela: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = copy.deepcopy(ela.conv), copy.deepcopy(ela.norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        gate_h = self.norm(self.conv(x.mean(dim=3))).sigmoid()
        gate_w = self.norm(self.conv(x.mean(dim=2))).sigmoid()
        return x * gate_h.unsqueeze(3) * gate_w.unsqueeze(2)


def timed(work: Callable[[], object], device: str) -> Callable[[], object]:
    """The work, finished: a GPU's calls return before that."""
    if device == "cpu":
        return work

    def finished() -> None:
        work()
        torch.cuda.synchronize()

    return finished


def rounds_of(
    works: dict[str, Callable[[], object]], rounds: int, device: str, calls: int
) -> dict[str, list[float]]:
    """Milliseconds of one call, by round; several calls a round make a GPU's start-up count less."""

    def several(work: Callable[[], object]) -> None:
        for _ in range(calls):
            work()

    repeated = {name: timed(partial(several, work), device) for name, work in works.items()}
    for work in repeated.values():  # compilation, tuning and the allocator's first requests
        work()
    times = interleaved(repeated, rounds)
    return {name: [1000 * each / calls for each in taken] for name, taken in times.items()}


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median over the rounds."""
    return median(a / b for a, b in zip(over, under, strict=True))


def forward(module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        module(x)


def both(module: nn.Module, x: Tensor, dy: Tensor) -> None:
    x.grad = None
    module.zero_grad(set_to_none=True)
    module(x).backward(dy)


def module_table(options: argparse.Namespace) -> None:
    """Print a row for every shape, layout and size of ELA."""
    device, on_gpu = options.device, options.device == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    # A round has many calls on a GPU, where one takes a fraction of a millisecond.
    measure = partial(rounds_of, rounds=options.rounds, device=device, calls=20 if on_gpu else 1)
    header = ["shape", "layout", "size", "naive", "compiled", "fused", "naive/fused", "compiled/fused"]
    header += ["both: naive", "compiled", "fused", "naive/fused", "compiled/fused"]
    header += ["kept: naive", "fused"] + (["fused / 2r+1w", "both / 5r+2w"] if on_gpu else [])
    line(header)
    line(["---"] * len(header))
    for shape in options.shapes or SHAPES[device]:
        for layout, memory_format in LAYOUTS.items():
            x = torch.randn(shape, device=device).to(dtype=dtype, memory_format=memory_format)
            dy, target = torch.randn_like(x), torch.empty_like(x)
            x.requires_grad_()
            for size in options.sizes:
                fused = build_attention(size, shape[1]).to(device, dtype)
                modules: dict[str, nn.Module] = {"naive": Naive(fused), "fused": fused}
                if options.compiled:
                    torch.compiler.reset()
                    modules["compiled"] = torch.compile(copy.deepcopy(modules["naive"]))
                works = {name: partial(forward, module, x) for name, module in modules.items()}
                steps = {name: partial(both, module, x, dy) for name, module in modules.items()}
                copying = {"copy": partial(target.copy_, dy)}
                there, back = measure(works | copying), measure(steps | copying)
                cells = [" × ".join(map(str, shape)), layout, size]
                for times in (there, back):
                    names = ("naive", "compiled", "fused")
                    cells += [f"{median(times[name]):.2f}" if name in times else "" for name in names]
                    cells += [
                        f"{ratio(times[name], times['fused']):.2f}" if name in times else ""
                        for name in names[:2]
                    ]
                cells += [f"{kept(modules[name], x):.2f}" for name in ("naive", "fused")]
                if on_gpu:  # a copy is one read and one write
                    cells += [
                        f"{ratio(there['fused'], there['copy']) * 2 / 3:.2f}",
                        f"{ratio(back['fused'], back['copy']) * 2 / 7:.2f}",
                    ]
                line(cells)


def kept(module: nn.Module, x: Tensor) -> float:
    """What autograd keeps beside the input, in units of the input."""
    return saved_bytes(module, x) / (x.numel() * x.element_size()) - 1


def network_table(options: argparse.Namespace) -> None:
    """Print what a training step takes without ELA, with the formula and with the one operation."""
    on_gpu = options.device == "cuda"
    networks: dict[str, tuple[Callable[[], nn.Module], str]] = {
        "MobileNetV2": (mobilenet_v2, "mobilenetv2.depthwise")
    }
    if on_gpu:
        networks["ResNet-50"] = (resnet50, "resnet.block")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    line(
        ["network", "layout", "none", "naive", "fused", "naive adds", "fused adds", "fused adds / naive adds"]
    )
    line(["---"] * 8)
    for network, (build, at) in networks.items():
        for layout, memory_format in LAYOUTS.items():
            if on_gpu and layout == "contiguous":
                continue
            shape = (options.batch, 3, options.image, options.image)
            image = torch.randn(shape, device=options.device).to(memory_format=memory_format)
            torch.manual_seed(0)
            plain = build()
            built = {"none": plain, "naive": copy.deepcopy(plain), "fused": copy.deepcopy(plain)}
            for name in ("naive", "fused"):
                attach(built[name], "ela_t" if network == "MobileNetV2" else "ela_b", at=at)
            for _, site in attention_modules(built["naive"]):
                site.attention = Naive(site.attention)
            works: dict[str, Callable[[], object]] = {}
            for name, module in built.items():
                module.to(options.device, memory_format=memory_format).train()
                works[name] = partial(step, module, image, dtype)
            times = rounds_of(works, options.rounds, options.device, calls=5 if on_gpu else 1)
            none = times["none"]
            added = {name: [a - b for a, b in zip(times[name], none, strict=True)] for name in times}
            line(
                [
                    *(network, layout),
                    *(f"{median(times[name]):.1f}" for name in built),
                    *(f"{100 * (ratio(times[name], none) - 1):.1f}%" for name in ("naive", "fused")),
                    f"{median(added['fused']) / median(added['naive']):.2f}",
                ]
            )


def step(network: nn.Module, image: Tensor, dtype: torch.dtype) -> None:
    """Forward and backward in training; in half precision under autocast."""
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss = network(image).float().square().mean()
    loss.backward()
    network.zero_grad(set_to_none=True)


def line(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def processor() -> str:
    """Name of the CPU."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next(
        (text.partition(":")[2].strip() for text in lines if "model name" in text), platform.machine()
    )


def shape_of(text: str) -> tuple[int, ...]:
    sizes = tuple(map(int, text.split("x")))
    if len(sizes) != 4:
        raise argparse.ArgumentTypeError(f"a shape is BxCxHxW, as in 16x64x56x56, got {text}")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads on the CPU (default 1)")
    parser.add_argument("--shapes", type=shape_of, nargs="+", help="BxCxHxW; default: those of the docs")
    parser.add_argument("--sizes", choices=SIZES, nargs="+", default=SIZES)
    parser.add_argument("--no-compiled", dest="compiled", action="store_false", help="no torch.compile")
    parser.add_argument("--no-module", dest="module", action="store_false", help="only --network")
    parser.add_argument("--network", action="store_true", help="training steps of networks too")
    parser.add_argument("--image", type=int, help="side of the images (default 160; 224 on a GPU)")
    parser.add_argument("--batch", type=int, help="images in a batch (default 32; 128 on a GPU)")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("this PyTorch sees no CUDA device; --device cpu measures on the CPU")
    options.image = options.image or (224 if on_gpu else 160)
    options.batch = options.batch or (128 if on_gpu else 32)
    torch.set_num_threads(options.threads)
    print(
        f"{torch.cuda.get_device_name() if on_gpu else processor()}, torch {torch.__version__}, "
        f"{'Triton, ' if on_gpu and has_triton() else ''}{options.threads} threads, {options.rounds} rounds, "
        f"{'bfloat16' if on_gpu else 'float32'}; milliseconds\n"
    )
    if options.module:
        module_table(options)
        print()
    if options.network:
        network_table(options)


if __name__ == "__main__":
    main()
