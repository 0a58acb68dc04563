"""Mixup and CutMix: training on blends of two images, applied to a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from attnlab.errors import AttnlabError


@dataclass(frozen=True)
class MixingConfig:
    """Blends of two images, with their labels blended alike. Where both kinds are on, each batch gets one.

    Attributes:
        mixup_alpha: Mixup (arXiv 1710.09412): the share of an image is drawn from Beta(alpha, alpha); 0 is
            off (0.2 in the paper's ImageNet runs).
        cutmix_alpha: CutMix (arXiv 1905.04899): the area of the rectangle that stays is drawn from
            Beta(alpha, alpha); 0 is off (1.0 in the paper).
        probability: Share of the batches that are mixed at all, in 0..1.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0


class BatchMixing:
    """Mixes a batch with itself, in another order, as configured.

    It draws from torch's default generator, which a task seeds anew for every step.

    Args:
        config: Which kinds, and how often.
        num_classes: Number of classes K.

    Raises:
        AttnlabError: For a negative alpha, or a probability outside 0..1.
    """

    def __init__(self, config: MixingConfig, num_classes: int) -> None:
        if min(config.mixup_alpha, config.cutmix_alpha) < 0 or not 0 <= config.probability <= 1:
            raise AttnlabError(
                "--model.mixing needs alphas of 0 or more and a probability within 0..1; got "
                f"mixup_alpha {config.mixup_alpha}, cutmix_alpha {config.cutmix_alpha}, "
                f"probability {config.probability}."
            )
        self.probability = config.probability
        self.kinds: list[v2.Transform] = []
        if config.mixup_alpha > 0:
            self.kinds.append(v2.MixUp(alpha=config.mixup_alpha, num_classes=num_classes))
        if config.cutmix_alpha > 0:
            self.kinds.append(v2.CutMix(alpha=config.cutmix_alpha, num_classes=num_classes))

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            image: (B, 3, H, W).
            label: int64 (B,).

        Returns:
            The images, and the labels: as they came, or, where the batch was mixed, as float (B, K) shares
            that add up to 1.
        """
        if not self.kinds or float(torch.rand(())) >= self.probability:
            return image, label
        kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
        mixed, shares = kind(image, label)
        return mixed, shares
