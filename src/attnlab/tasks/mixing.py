"""Mixup and CutMix, applied to whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from attnlab.errors import AttnlabError


@dataclass(frozen=True)
class MixingConfig:
    """Mixup and CutMix. If both are on, each batch gets one of them.

    Attributes:
        mixup_alpha: Mixup (arXiv 1710.09412): the mixing ratio is drawn from Beta(alpha, alpha); 0 turns it
            off (0.2 in the paper's ImageNet runs).
        cutmix_alpha: CutMix (arXiv 1905.04899): the share of the area kept is drawn from Beta(alpha, alpha);
            0 turns it off (1.0 in the paper).
        probability: Probability that a batch is mixed, in 0..1.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0


class BatchMixing:
    """Mixes a batch with a permutation of itself.

    Draws from torch's default generator, which a task reseeds every step.

    Args:
        config: The kinds of mixing and their probability.
        num_classes: Number of classes K.

    Raises:
        AttnlabError: An alpha is negative, or the probability is outside 0..1.
    """

    def __init__(self, config: MixingConfig, num_classes: int) -> None:
        if min(config.mixup_alpha, config.cutmix_alpha) < 0 or not 0 <= config.probability <= 1:
            raise AttnlabError(
                "--model.mixing needs alphas of at least 0 and a probability in 0..1; got mixup_alpha "
                f"{config.mixup_alpha}, cutmix_alpha {config.cutmix_alpha}, probability "
                f"{config.probability}."
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
            The images and the labels: unchanged, or float (B, K) summing to 1 if the batch was mixed.
        """
        if not self.kinds or float(torch.rand(())) >= self.probability:
            return image, label
        kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
        mixed, shares = kind(image, label)
        return mixed, shares
