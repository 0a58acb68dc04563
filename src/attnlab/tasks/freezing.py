"""Training attention and head before the backbone."""

from __future__ import annotations

from collections.abc import Iterable

from torch import distributed, nn


class BackboneFreeze:
    """Keeps the backbone as it is for the first epochs, its BatchNorm statistics too.

    Its parameters are in the optimizer from the start, so that a run can be resumed in either part, and the
    schedule is one. What is frozen gets neither an update nor weight decay.

    Args:
        epochs: How many; 0 freezes nothing.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._held: list[nn.Parameter] = []

    def at_epoch(
        self, epoch: int, parameters: Iterable[nn.Parameter], batchnorms: Iterable[nn.Module]
    ) -> None:
        """Freeze, or thaw, as the epoch that begins says.

        Args:
            epoch: Its number, from 0.
            parameters: The backbone's, without those of attention in it.
            batchnorms: The backbone's BatchNorm layers.
        """
        frozen = epoch < self.epochs
        if frozen or self._held:
            for layer in batchnorms:
                layer.train(not frozen)
        if frozen and not self._held:
            self._held = [parameter for parameter in parameters if parameter.requires_grad]
            # A distributed strategy has been promised a gradient of each, and waits for it.
            shared = distributed.is_available() and distributed.is_initialized()
            for parameter in self._held if not shared else ():
                parameter.requires_grad_(False)
        elif not frozen and self._held:
            for parameter in self._held:
                parameter.requires_grad_(True)
            self._held = []

    def drop_gradients(self) -> None:
        """Forget the gradients of what is frozen: a distributed strategy fills them in all the same."""
        for parameter in self._held:
            parameter.grad = None
