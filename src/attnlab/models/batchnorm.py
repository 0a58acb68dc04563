"""BatchNorm where the usual rule cannot hold."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that falls back on its running statistics when a channel has a single value.

    A global pooling branch (DeepLab's ASPP, UPerNet's coarsest pyramid level) normalises 1x1 maps. With one
    image in the batch a channel then has one value, its variance is not defined, and PyTorch raises. Here
    such a batch is normalised as in evaluation, with the running mean and variance, and leaves those
    unchanged. Any larger batch behaves as ever.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) per channel."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def allow_single_values(module: nn.Module) -> int:
    """Give every BatchNorm in a module this rule, in place and with its weights; how many there were."""
    layers = [layer for layer in module.modules() if type(layer) is nn.BatchNorm2d]
    for layer in layers:
        layer.__class__ = SingleValueBatchNorm2d
    return len(layers)
