"""An exponential moving average of the weights with a ramped decay."""

from __future__ import annotations

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from attnlab.errors import AttnlabError


class RampedEMA(WeightAveraging):
    """Scores and saves an average of the weights whose decay grows from 0, as in YOLOX.

    After optimizer step n the average is d a + (1 - d) w with d = ``decay`` (1 - exp(-n / ``ramp_steps``)).
    With a fixed decay of 0.9998, a third of the average after 5,000 steps would still be the initial weights.
    The ramp is from YOLOX's code (arXiv 2107.08430).

    Args:
        decay: Final share of the average kept at each step, in 0..1.
        ramp_steps: Optimizer steps after which the decay reaches 63 % of that.

    Raises:
        AttnlabError: A value is out of range.
    """

    def __init__(self, decay: float = 0.9998, ramp_steps: int = 2000) -> None:
        if not 0 <= decay < 1:
            raise AttnlabError(f"RampedEMA's decay is {decay}; it must be within 0..1, below 1.")
        if ramp_steps < 1:
            raise AttnlabError(f"RampedEMA's ramp_steps is {ramp_steps}; it must be at least 1.")
        self.decay = decay
        self.ramp_steps = ramp_steps
        super().__init__(avg_fn=self.average)

    def average(self, averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        """A tensor's new average, from the old one and the weights after this step."""
        step = averaged.new_tensor(1.0).float() * updates
        kept = self.decay * (1 - (-step / self.ramp_steps).exp())
        return averaged + (1 - kept) * (current - averaged)
