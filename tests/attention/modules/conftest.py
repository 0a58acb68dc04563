"""Which of the tester's tests are in the slow part."""

from __future__ import annotations

import pytest

TRACED = ("test_compiles_as_one_graph", "test_exports", "test_traces_with_fx")
SIZES_OF_ELA = ("ela_t", "ela_b", "ela_s", "ela_l")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A tracer sees a module's code once by its default options; with others, in the slow part."""
    for item in items:
        cls = getattr(item, "cls", None)
        if (
            "attention/modules" in item.path.as_posix()
            and item.name in TRACED
            and (getattr(cls, "options", None) or getattr(cls, "name", "") in SIZES_OF_ELA)
        ):
            item.add_marker(pytest.mark.slow)
