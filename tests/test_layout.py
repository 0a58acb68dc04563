"""The tests lie as the sources do, and stand on conftest.py and tester.py alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src/attnlab"
LONGEST = 400

COMMAND_LINE = "tests/cli, by the real command line"
TRITON = "tests/attention/kernels/test_triton.py"

ELSEWHERE = {
    "analysis/profile_table.py": "tests/analysis/test_profile.py",
    "analysis/tables.py": "tests/analysis/test_attention_table.py and tests/analysis/test_profile.py",
    "attention/kernels/gate_kernels.py": TRITON,
    "attention/kernels/map_kernels.py": TRITON,
    "attention/kernels/triton_backend.py": TRITON,
    "attention/observe.py": "tests/attention/test_placement.py",
    "attention/testing.py": "it is a tester; tests/attention/test_registered.py runs it on a page's module",
    "callbacks/cost.py": COMMAND_LINE,
    "callbacks/remember.py": COMMAND_LINE,
    "callbacks/signals.py": "tests/cli/test_signals.py, by real signals",
    "cli/help_page.py": COMMAND_LINE,
    "cli/parts.py": COMMAND_LINE,
    "data/base.py": "tests/data/tester.py, on every data module",
    "data/classification/base.py": "tests/data/classification/tester.py",
    "data/classification/sets.py": "tests/data/classification/tester.py",
    "data/resuming.py": "tests/cli/test_resuming.py",
    "data/segmentation/base.py": "tests/data/segmentation/tester.py",
    "data/segmentation/sets.py": "tests/data/segmentation/tester.py",
    "data/shapes/base.py": "tests/data/shapes/test_root.py and tests/data/shapes/test_segmentation.py",
    "data/shapes/writers.py": "tests/data/shapes, through what is read of it",
    "models/detectors/csp_darknet.py": "tests/models/detectors/test_yolox.py",
    "models/detectors/names.py": "tests/models/detectors/test_yolox_weights.py",
    "models/detectors/recipe.py": "tests/models/detectors/test_build.py",
    "models/detectors/ssdlite.py": "tests/models/detectors/test_torchvision.py",
    "models/detectors/yolox_head.py": "tests/models/detectors/test_yolox.py",
    "models/published.py": "tests/models/test_classifiers.py and tests/models/test_classifier_weights.py",
    "tasks/configs.py": "tests/tasks/test_base.py",
    "tasks/freezing.py": "tests/tasks/test_base.py",
    "tasks/layout.py": "tests/tasks/test_base.py",
    "tasks/network.py": "tests/tasks/test_base.py",
}
"""Sources without a test file of their name, and where they are tested, or why they are not."""

HELPERS = {
    "attention/exporting.py": "what older versions of torch cannot export",
    "attention/kernels/definitions.py": "the six functions of a backend, as their formulas",
    "attention/kernels/triton_checks.py": "run as a process of its own",
    "attention/naive.py": "layers written as their definitions",
    "cli/forking.py": "run as a process of its own",
}
"""Modules beside tests, conftest.py and tester.py."""

FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("*.py"))


def mirrored(source: str) -> Path:
    """Where the tests of a source file lie."""
    return Path(source).parent / f"test_{Path(source).name}"


def sources() -> list[str]:
    files = (path.relative_to(SOURCES) for path in SOURCES.rglob("*.py"))
    return sorted(path.as_posix() for path in files if path.name != "__init__.py")


def test_each_source_has_its_tests():
    missing = [source for source in sources() if mirrored(source) not in FILES and source not in ELSEWHERE]
    assert missing == [], "write tests of these names, or say in ELSEWHERE where the tests are"


def test_no_exception_is_out_of_date():
    known = sources()
    assert [source for source in ELSEWHERE if source not in known] == []
    assert [source for source in ELSEWHERE if mirrored(source) in FILES] == []
    assert [name for name in HELPERS if Path(name) not in FILES] == []


def test_what_an_exception_names_is_there():
    named = re.findall(r"tests/[\w/.]*\w", " ".join(ELSEWHERE.values()))
    assert [name for name in named if not (TESTS.parent / name).exists()] == []


def lines(path: Path) -> int:
    return len((TESTS / path).read_text(encoding="utf-8").splitlines())


def test_test_files_are_short():
    tests = (path for path in FILES if path.name.startswith("test_"))
    assert [path.as_posix() for path in tests if lines(path) > LONGEST] == []


def test_helpers_stand_in_conftest():
    """`tester.py` has classes of tests that other test files subclass."""
    usual = {"__init__.py", "conftest.py", "tester.py"}
    odd = [path.as_posix() for path in FILES if not (path.name in usual or path.name.startswith("test_"))]
    assert [name for name in odd if name not in HELPERS and not name.startswith("tools/")] == []


def imported(path: Path) -> Iterator[str]:
    """Each module that a file imports, and each name of it, since that may be a module, too."""
    package = ["tests", *path.parts[:-1]]
    for node in ast.walk(ast.parse((TESTS / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def test_no_test_imports_another():
    tests = {
        ".".join(("tests", *path.with_suffix("").parts)) for path in FILES if path.name.startswith("test_")
    }
    assert [path.as_posix() for path in FILES if not tests.isdisjoint(imported(path))] == []


def test_folders_hold_tests():
    packages = {path.parent for path in FILES if path.name == "__init__.py"}
    full = {path.parent for path in FILES if path.name != "__init__.py"}
    assert sorted(packages - full) == []
