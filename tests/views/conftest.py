"""Several processes."""

import pytest

from attnlab.views import gather
from tests.views.stubs import Processes


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Runs a function as so many processes would: ``processes(3, function_of_rank)``."""
    made = Processes()
    monkeypatch.setattr(gather, "distributed", made)
    return made
