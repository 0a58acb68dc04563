"""Python objects of all processes."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

ItemT = TypeVar("ItemT")


def gathered(item: ItemT) -> list[ItemT]:
    """The item of every process, by rank. Every process must call this; it is one's own alone without DDP."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [item]
    items: list[ItemT] = [item] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return items
