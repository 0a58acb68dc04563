from __future__ import annotations

import numpy as np
import pytest

from attnlab.data.shapes.forms import FORMS, form_area


@pytest.mark.parametrize("name", FORMS)
def test_forms_fill_their_radius_and_have_their_own_area(name):
    y, x = np.mgrid[-1.2:1.2:0.01, -1.2:1.2:0.01]
    inside = FORMS[name](x, y) < 0
    assert 0.94 <= np.hypot(x, y)[inside].max() <= 1.12
    assert inside.sum() * 1e-4 == pytest.approx(form_area(name), rel=0.02)
