"""Training attention and head before the backbone."""

from __future__ import annotations

from collections.abc import Iterable

from torch import distributed, nn


class BackboneFreeze:
    """Freezes the backbone for the first epochs, including its BatchNorm statistics.

    Its parameters are in the optimizer from the start, so that a run can be resumed at any time under one
    schedule. Frozen parameters get neither updates nor weight decay.

    Args:
        epochs: Number of epochs; 0 freezes nothing.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._held: list[nn.Parameter] = []

    def at_epoch(
        self, epoch: int, parameters: Iterable[nn.Parameter], batchnorms: Iterable[nn.Module]
    ) -> None:
        """Freeze or unfreeze at the start of an epoch.

        Args:
            epoch: The epoch, counted from 0.
            parameters: The backbone's, without those of attention modules.
            batchnorms: The backbone's BatchNorm layers.
        """
        frozen = epoch < self.epochs
        if frozen or self._held:
            for layer in batchnorms:
                layer.train(not frozen)
        if frozen and not self._held:
            self._held = [parameter for parameter in parameters if parameter.requires_grad]
            # A distributed strategy expects a gradient of each parameter, and waits for it.
            shared = distributed.is_available() and distributed.is_initialized()
            for parameter in self._held if not shared else ():
                parameter.requires_grad_(False)
        elif not frozen and self._held:
            for parameter in self._held:
                parameter.requires_grad_(True)
            self._held = []

    def drop_gradients(self) -> None:
        """Drop the gradients of frozen parameters, which a distributed strategy computes all the same."""
        for parameter in self._held:
            parameter.grad = None
