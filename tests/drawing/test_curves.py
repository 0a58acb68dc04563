"""Precision against recall, read back from its picture."""

from __future__ import annotations

import numpy as np
import pytest

from attnlab.drawing.curves import precision_picture
from tests.drawing.conftest import legends_of, names_of


@pytest.mark.parametrize("classes", [1, 10, 11, 80])
def test_curves_lie_at_their_precision(classes):
    precision = np.full((10, 101, classes), 0.0)
    precision[0] = 0.5
    drawn = precision_picture(precision, names_of(classes), "a title")
    blue = (drawn == (0, 114, 190)).all(-1)
    level = blue[:, :450].sum(1)
    # Both ends of the axis: the black line of the mean over IoUs is at 0.05, the orange one at 0.
    bottom = np.flatnonzero((drawn == (230, 120, 30)).all(-1)[:, :450].sum(1) > 300)
    height = bottom.mean() - np.flatnonzero(level > 300).mean()
    assert height / (360 / 1.01) == pytest.approx(0.5, abs=0.01)
    assert drawn.shape[1] < 1500


def test_classes_without_truths_have_no_curve():
    precision = np.full((10, 101, 3), 0.5)
    precision[:, :, 1] = -1
    both = precision_picture(precision[:, :, [0, 2]], ["a", "c"])
    assert np.array_equal(precision_picture(precision, ["a", "b", "c"]), both)
    assert precision_picture(np.full((10, 101, 2), -1.0), ["a", "b"]) is None


def test_the_figures_beside_curves_are_the_aps(figure_of):
    """AP50, AP75 and the AP over all IoUs of two classes; a third has no truths."""
    precision = np.random.default_rng(0).uniform(0, 1, (10, 101, 3))
    precision[:, :, 1] = -1
    precision_picture(precision, ["cat", "cow", "dog"], "val")
    total = {"0.50": 0.0, "0.75": 0.0, "0.50:0.95": 0.0}
    for k in (0, 2):
        for t in range(10):
            ap = sum(precision[t, :, k].tolist()) / 101
            total["0.50:0.95"] += ap / 20
            total["0.50"] += ap / 2 * (t == 0)
            total["0.75"] += ap / 2 * (t == 5)
    legends = legends_of(figure_of[0])
    assert legends["AP, IoU"] == [f"{value:.3f}  {iou}" for iou, value in total.items()]
    ap50 = sorted(((sum(precision[0, :, k]) / 101, n) for k, n in ((0, "cat"), (2, "dog"))), reverse=True)
    assert legends["AP50, class"] == [f"{value:.3f}  {name}" for value, name in ap50]


def test_of_many_classes_the_best_and_the_worst_are_named(figure_of):
    precision = np.tile(np.arange(30)[::-1] / 30, (10, 101, 1))  # class 0 is the best
    precision_picture(precision, [f"class {k}" for k in range(30)])
    texts = legends_of(figure_of[0])["AP50, class"]
    assert texts[:4] == [f"{(29 - k) / 30:.3f}  class {k}" for k in range(4)]
    assert texts[4] == f"{np.mean(np.arange(4, 26) / 30):.3f}  22 others"
    assert texts[5:] == [f"{(29 - k) / 30:.3f}  class {k}" for k in range(26, 30)]
    # The others are drawn nevertheless.
    drawn = np.concatenate([line.get_ydata() for line in figure_of[0].axes[1].lines])
    assert set(np.round(drawn[~np.isnan(drawn)], 6)) == {round(k / 30, 6) for k in range(30)}
