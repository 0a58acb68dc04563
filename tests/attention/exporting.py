"""What older versions of torch cannot export."""

import pytest
import torch

# Seen to refuse: 2.8 to 2.12; seen to work: 2.15.
free_pooling = pytest.mark.skipif(
    torch.__version__ < (2, 15),  # type: ignore[operator]  # torch compares by number
    reason="torch before 2.15 exports windows that overlap or are cut off at sizes that are fixed only",
)
