"""Settings of all tests."""

import os

import pytest
import torch

# The networks here are small: more threads would only wait for each other. To test with more, name a number.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is remembered between runs stays out of the home of who runs the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
