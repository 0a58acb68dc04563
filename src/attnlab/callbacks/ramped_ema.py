"""An exponential moving average of the weights that forgets its beginning."""

from __future__ import annotations

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from attnlab.errors import AttnlabError


class RampedEMA(WeightAveraging):
    """Scores and keeps an average of the weights whose decay grows from 0, as YOLOX's does.

    After optimizer step n the average is d a + (1 - d) w with d = ``decay`` (1 - exp(-n / ``ramp_steps``)). A
    fixed decay of 0.9998 would leave the random start a third of the average after 5,000 steps. The ramp is
    that of YOLOX's code (arXiv 2107.08430).

    Args:
        decay: Share of the average that is kept at every step in the end, in 0..1.
        ramp_steps: Optimizer steps after which the decay is at 63 % of that.

    Raises:
        AttnlabError: A value out of its range.
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
        """A tensor's new average, of the one after so many updates and the weights after this step."""
        step = averaged.new_tensor(1.0).float() * updates
        kept = self.decay * (1 - (-step / self.ramp_steps).exp())
        return averaged + (1 - kept) * (current - averaged)
