"""Several processes."""

import pytest

from attnlab.views import base
from tests.views.stubs import Processes


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Runs a function as so many processes would: ``processes(3, function_of_rank)``."""
    made = Processes()
    monkeypatch.setattr(base, "distributed", made)
    return made
