"""BatchNorm for single values per channel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that falls back on its running statistics when a channel has a single value.

    A global pooling branch (DeepLab's ASPP, UPerNet's coarsest pyramid level) normalises 1x1 maps. With one
    image in the batch, the variance of a channel is undefined and PyTorch raises. Here such a batch is
    normalised as in evaluation and leaves the running statistics unchanged. Larger batches behave as usual.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) per channel."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def allow_single_values(module: nn.Module) -> int:
    """Replace every BatchNorm in a module by this one, in place and with its weights; returns how many."""
    layers = [layer for layer in module.modules() if type(layer) is nn.BatchNorm2d]
    for layer in layers:
        layer.__class__ = SingleValueBatchNorm2d
    return len(layers)
