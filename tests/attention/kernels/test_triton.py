"""The Triton backend, with `map_kernels.py` and `gate_kernels.py`: what they compute, and that they compile.

Whether a kernel is interpreted or compiled is decided once for a process, when the module that holds it is
imported. So the checks of what kernels compute run in a process of their own (``triton_checks.py``), and this
one only compiles, for GPUs that need not be there.
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from attnlab.attention.kernels.strips import Layers

triton = pytest.importorskip("triton", reason="Triton is not installed")
compiler = pytest.importorskip("triton.compiler")
backends = pytest.importorskip("triton.backends.compiler")

BACKEND = "attnlab.attention.kernels.triton_backend"
# The checks of what they compute run both layouts; that one of them compiles shows the code to be sound.
in_both_layouts = pytest.mark.parametrize("layout", [pytest.param("plane", marks=pytest.mark.slow), "pixel"])
POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.float64: "*fp64"}


@pytest.mark.parametrize("part", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_compute_what_the_formulas_say(part):
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", part]
    command.append(str(Path(__file__).with_name("triton_checks.py")))
    checks = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=600
    )
    assert checks.returncode == 0, checks.stdout + checks.stderr


class Compiled:
    """Stands for a kernel: compiles it for the arguments of each launch, and launches nothing."""

    def __init__(self, kernel, capability):
        self.kernel = kernel
        self.target = backends.GPUTarget("cuda", capability, 32)
        self.binaries = []

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *arguments, num_warps, **constants):
        signature, hints = {}, {}
        for index, (name, argument) in enumerate(zip(self.kernel.arg_names, arguments, strict=False)):
            if isinstance(argument, torch.Tensor):
                signature[name] = POINTERS[argument.dtype]
            elif argument is None or argument == 1:
                signature[name], constants[name] = "constexpr", argument
            else:
                signature[name] = "i32"
            if isinstance(argument, torch.Tensor) or (argument or 1) % 16 == 0:
                hints[index,] = [["tt.divisibility", 16]]
        signature.update(dict.fromkeys(constants, "constexpr"))
        source = compiler.ASTSource(self.kernel, signature, constants, hints)
        binary = triton.compile(source, target=self.target, options={"num_warps": num_warps})
        self.binaries.append(binary.asm)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Replace the kernels of a module by their compilation for a compute capability."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1: kernels are interpreted, not compiled")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this Triton has no backend for NVIDIA GPUs")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def replace(kernels, capability):
        module = import_module(BACKEND)
        stand_ins = {name: Compiled(getattr(module, name), capability) for name in kernels}
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(module, name, stand_in)
        return module, stand_ins

    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # no timing
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    yield replace
    torch.use_deterministic_algorithms(was)


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str
)
@in_both_layouts
def test_strip_kernels_compile(compiled, layout, dtype, capability):
    module, kernels = compiled(["sums_kernel", "scale_kernel"], capability)
    memory_format = torch.channels_last if layout == "pixel" else torch.contiguous_format
    x = torch.empty(8, 64, 56, 56, dtype=dtype).contiguous(memory_format=memory_format)
    strip = torch.empty(8, 64, 56)
    module.means(x)
    module.gate(x, (strip, strip))
    module.gate_gradients(x, x, (strip, strip))
    module.input_gradient(x, (strip, strip), (strip, strip))
    for kernel in kernels.values():
        assert len(kernel.binaries) == 2
        for binary in kernel.binaries:
            assert binary["cubin"]
            assert "v4" in binary["ptx"] or "cp.async.cg" in binary["ptx"], "loads are 16 bytes wide"


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@in_both_layouts
def test_strip_gate_kernels_compile(compiled, layout, capability):
    module, kernels = compiled(["gates_kernel", "gates_gradients_kernel"], capability)
    means = [torch.empty(2, 64, length) for length in (56, 48)]
    if layout == "pixel":
        means = [mean.transpose(1, 2).contiguous().transpose(1, 2) for mean in means]
    layers = Layers(torch.empty(64, 1, 7), torch.empty(64), torch.empty(64), 16, 1e-5)
    gates = module.strip_gates(means, layers)
    module.strip_gates_gradients(gates, gates, means, layers)
    assert all(binary["cubin"] for kernel in kernels.values() for binary in kernel.binaries)
    assert [len(kernel.binaries) for kernel in kernels.values()] == [1, 1]
