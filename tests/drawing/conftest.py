"""Figures, looked at before they become pixels."""

from __future__ import annotations

import numpy as np
import pytest

from attnlab.drawing import confusion, curves

PAGE = np.zeros((1, 1, 3), np.uint8)


@pytest.fixture
def figure_of(monkeypatch):
    """The figure that a picture was made of."""
    made = []
    for module in (confusion, curves):
        monkeypatch.setattr(module, "pixels_of", lambda figure, margin=None: made.append(figure) or PAGE)
    return made


def legends_of(figure):
    """Title and texts of each legend."""
    found = [axes.get_legend() for axes in figure.axes]
    return {x.get_title().get_text(): [text.get_text().strip() for text in x.texts] for x in found if x}


def names_of(classes):
    return [f"a class with the number {index}" for index in range(classes)]
