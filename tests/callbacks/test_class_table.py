"""The table of classes, beside one worked out by hand."""

from __future__ import annotations

import torch

from attnlab.callbacks.class_table import class_rows


def test_rows() -> None:
    matrix = torch.tensor([[3, 0, 1], [0, 0, 0], [2, 2, 4]])
    rows = class_rows(matrix, {"cat": 0.75, "dog": 0.5}, ["cat", "cow", "dog"], ["n1", "n2", "n3"])
    assert rows == [
        (0, "n1", "cat", 4, 0.75, "dog", 1),
        (1, "n2", "cow", 0, "", "", 0),
        (2, "n3", "dog", 8, 0.5, "cat", 2),
    ]
