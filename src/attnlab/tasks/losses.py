"""Losses of semantic segmentation, and their weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.errors import AttnlabError


@dataclass(frozen=True)
class SegmentationLossConfig:
    """Weights of the summed loss terms; a term of weight 0 is not computed.

    Attributes:
        cross_entropy: Weight of the cross-entropy (mean over pixels).
        focal: Weight of the focal loss.
        dice: Weight of the Dice loss.
        focal_gamma: Exponent of the focal loss; 0 gives cross-entropy (2 in the paper).
        label_smoothing: Label smoothing of the cross-entropy, in 0..1.
    """

    cross_entropy: float = 1.0
    focal: float = 0.0
    dice: float = 0.0
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0


class SegmentationLoss(torch.nn.Module):
    """Weighted sum of cross-entropy, focal and Dice loss over the pixels that are not ignored.

    Cross-entropy and focal loss are means over the pixels of the batch that are not ``ignore_index``; a batch
    without any gives 0 (and zero gradients), not NaN. The focal loss is the softmax form of Lin et al., arXiv
    1708.02002, equation 4: ``-(1 - p_t)^gamma log p_t`` with p_t the softmax probability of the true class.
    Dice is segmentation-models-pytorch's multi-class form, without classes absent from the batch.

    Args:
        config: The weights.
        ignore_index: Mask value of ignored pixels.

    Raises:
        AttnlabError: No weight is positive, or one is negative.
    """

    def __init__(self, config: SegmentationLossConfig, ignore_index: int = 255) -> None:
        super().__init__()
        weights = {"cross_entropy": config.cross_entropy, "focal": config.focal, "dice": config.dice}
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise AttnlabError(
                f"--model.loss needs weights of at least 0, and at least one above 0; got {weights}."
            )
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.config = config
        self.ignore_index = ignore_index
        self._dice: Any = None
        if config.dice > 0:
            import segmentation_models_pytorch as smp

            self._dice = smp.losses.DiceLoss("multiclass", ignore_index=ignore_index)

    def forward(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Terms by name, and their weighted sum as ``loss``.

        Args:
            logits: (B, K, H, W), any float dtype.
            mask: int64 (B, H, W), values 0..K-1 or ``ignore_index``.
        """
        terms = {name: getattr(self, f"_{name}_term")(logits.float(), mask) for name in self.weights}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": total, **terms}

    def _pixel_mean(self, values: Tensor, mask: Tensor) -> Tensor:
        return values.sum() / (mask != self.ignore_index).sum().clamp(min=1)

    def _cross_entropy_term(self, logits: Tensor, mask: Tensor) -> Tensor:
        values = F.cross_entropy(
            logits,
            mask,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )
        return self._pixel_mean(values, mask)

    def _focal_term(self, logits: Tensor, mask: Tensor) -> Tensor:
        log_loss = F.cross_entropy(logits, mask, ignore_index=self.ignore_index, reduction="none")
        # Ignored pixels have p_t = 1, where a power below 1 has an infinite gradient.
        uncertainty = (1 - torch.exp(-log_loss)).clamp(min=1e-7)
        return self._pixel_mean(uncertainty**self.config.focal_gamma * log_loss, mask)

    def _dice_term(self, logits: Tensor, mask: Tensor) -> Tensor:
        return self._dice(logits, mask)
