"""What the masks of a split hold, taken together: the mistakes that no mask shows by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from attnlab.data.images import read_mask
from attnlab.data.names import absent_classes
from attnlab.errors import AttnlabError

Values = Mapping[int, int]
"""Number of pixels by mask value, of a mask or of several."""

_MUCH = 0.5
"""Share of ignored pixels from which on a training set is spoken of."""

_MANY = 0.1
"""Share of masks of 0 and 255 alone from which on a training set is spoken of."""

_SAMPLE = 16


def values_of(mask: torch.Tensor) -> dict[int, int]:
    """Number of pixels by value, of a mask (H, W) uint8."""
    counts = torch.bincount(mask.flatten(), minlength=256)
    return {value: int(counts[value]) for value in counts.nonzero().flatten().tolist()}


def sampled_values(
    masks: Sequence[Path], reader: Callable[[Path], torch.Tensor] = read_mask, most: int = _SAMPLE
) -> list[dict[int, int]]:
    """The values of a few masks, evenly spread over all; those that cannot be read are passed over."""
    found = []
    for position in range(0, len(masks), max(1, len(masks) // most)):
        try:
            found.append(values_of(reader(masks[position])))
        except AttnlabError:
            continue
    return found


def binary_masks(masks: Sequence[Values], ignore_index: int) -> str | None:
    """What to say of masks that hold nothing but 0 and the ignored value, as most labelling tools write them.

    Args:
        masks: The values of each mask.
        ignore_index: The value that does not count.

    Returns:
        The sentence, or None if there is another value, or no ignored one.
    """
    total = _total(masks)
    if set(total) != {0, ignore_index}:
        return None
    return (
        f"they hold nothing but 0 and {ignore_index}, and {ignore_index} is no class: it means 'ignore', so "
        f"that {_percent(total, ignore_index)} of their pixels count neither in training nor in scores. They "
        f"look like binary masks of 0 and {ignore_index}: store 1 instead of {ignore_index}."
    )


def refuse_binary(masks: Sequence[Values], ignore_index: int, split: str) -> None:
    """Refuse masks that hold nothing but 0 and the ignored value: one class is all that they can show.

    Args:
        masks: The values of each mask of a split.
        ignore_index: The value that does not count.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        AttnlabError: They are such.
    """
    binary = binary_masks(masks, ignore_index)
    if binary is not None:
        way_out = "" if split == "train" else " If that is meant, turn the check off with --data.check none."
        raise AttnlabError(f"The {len(masks)} '{split}' masks cannot be right: {binary}{way_out}")


def refuse_single_class(masks: Sequence[Values], class_names: Sequence[str], ignore_index: int) -> None:
    """Refuse training masks of one class: the network that always says it is perfect.

    That is an error and no warning, since nothing that comes of such a run means anything.

    Args:
        masks: The values of each mask, each of them valid.
        class_names: Names of the classes 0, 1, ….
        ignore_index: The value that does not count.

    Raises:
        AttnlabError: The masks are such.
    """
    total = _total(masks)
    classes = sorted(set(total) - {ignore_index})
    if len(classes) == 1:
        ignored = f" ({ignore_index}, 'ignore', in {_percent(total, ignore_index)})" * (ignore_index in total)
        raise AttnlabError(
            f"Nothing can be learnt from the {len(masks)} 'train' masks: all of their pixels{ignored} are of "
            f"the class {classes[0]}, {class_names[classes[0]]}, so a network that always says so is "
            "perfect. Masks hold the index of a class in each pixel, 0, 1, …: look at how they were written, "
            "and at the list of the training images."
        )


def warnings_about(masks: Sequence[Values], class_names: Sequence[str], ignore_index: int) -> list[str]:
    """What a user should know of training masks before the first step, a line each.

    Args:
        masks: The values of each mask, each of them valid.
        class_names: Names of the classes 0, 1, ….
        ignore_index: The value that does not count.
    """
    total = _total(masks)
    texts = []
    absent = [name for label, name in enumerate(class_names) if label not in total]
    if absent:
        texts.append(absent_classes(absent, len(class_names), "training mask"))
    share = total[ignore_index] / max(1, total.total())
    binary = sum(set(values) == {0, ignore_index} for values in masks)
    if share > _MUCH or binary > _MANY * len(masks):
        some = f", and {binary} of {len(masks)} masks hold nothing but 0 and {ignore_index}" if binary else ""
        texts.append(
            f"{_percent(total, ignore_index)} of the training masks' pixels are {ignore_index}{some}: this "
            f"value means 'ignore', and counts neither in training nor in scores. If {ignore_index} stands "
            "for an object there, store its class instead."
        )
    return texts


def _total(masks: Iterable[Values]) -> Counter[int]:
    total: Counter[int] = Counter()
    for values in masks:
        total.update(values)
    return total


def _percent(total: Counter[int], value: int) -> str:
    return f"{total[value] / max(1, total.total()):.1%}"
