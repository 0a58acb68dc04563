"""Which losses end a training; tests/tasks/test_base.py has it within each task."""

from __future__ import annotations

import pytest
import torch

from attnlab.errors import AttnlabError
from attnlab.tasks.finite import FiniteLoss


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_no_number_is_refused(value: str) -> None:
    loss = torch.tensor(float(value))
    with pytest.raises(AttnlabError, match=f"in epoch 2, step 7: boxes {value}, classes 1") as caught:
        FiniteLoss().look_at({"loss": loss, "boxes": loss, "classes": torch.ones(())}, {}, 2, 7)
    assert "Images" not in str(caught.value)


def test_the_images_are_named() -> None:
    with pytest.raises(AttnlabError, match=r"loss nan\. Images of the batch: a, b\."):
        FiniteLoss().look_at({"loss": torch.tensor(float("nan"))}, {"name": ["a", "b"]}, 0, 0)


def test_any_other_is_not() -> None:
    guard = FiniteLoss()
    for loss in (0.0, -3.0, 1e38):
        guard.look_at({"loss": torch.tensor(loss)}, {}, 0, 0)
        guard.look_back()
