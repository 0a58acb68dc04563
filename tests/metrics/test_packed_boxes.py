"""Rows by class."""

from __future__ import annotations

import numpy as np
import pytest

from attnlab.metrics.packed_boxes import rows_by_class


@pytest.mark.parametrize("classes", [1, 3, 6])
def test_each_class_has_its_rows_in_their_order(classes):
    labels = np.random.default_rng(0).integers(0, classes, 40)
    labels[labels == 1] = 0  # one class has none
    found = rows_by_class(labels, classes)
    assert [rows.tolist() for rows in found] == [
        [row for row, label in enumerate(labels) if label == k] for k in range(classes)
    ]


def test_no_rows_at_all():
    assert [rows.tolist() for rows in rows_by_class(np.zeros(0, int), 2)] == [[], []]
