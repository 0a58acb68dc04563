from __future__ import annotations

import numpy as np

from attnlab.drawing.layout import grid, legend, swatch


def test_a_legend_is_bounded_and_keeps_to_its_width():
    entries = [(swatch((9, 99, 9)), f"a class {k} with a rather long name") for k in range(200)]
    for width in (60, 200, 900):
        drawn = legend(entries, width)
        assert drawn.shape[1] <= width + 60
        assert drawn.shape[0] < 26 * 22
    few = legend([(swatch((k, 99, 9)), f"class {k}") for k in range(5)], 400)
    assert {(k, 99, 9) for k in range(5)} <= {tuple(pixel) for pixel in few.reshape(-1, 3).tolist()}


def test_panels_stand_in_rows_of_their_own_height():
    sheet = grid([np.zeros((h, w, 3), np.uint8) for h, w in ((10, 20), (30, 5), (8, 8))])
    assert sheet.shape == (38, 40, 3)
    assert (sheet[30:38, :8] == 0).all()
    assert (sheet[30:38, 8:] == 255).all()
