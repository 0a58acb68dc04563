"""From images of their own sizes to the batch that a detector sees, and from its boxes back.

A detector owns one of these modules. Images come as (3,h,w) floats in 0..1, detections go out in the pixels
of the image that came; everything between (size, padding, normalisation) is the detector's.

Images are shrunk with antialiasing, as PIL does it, and not at all where they have the size already.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from attnlab.errors import AttnlabError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Images = Sequence[Tensor] | Tensor
Targets = list[dict[str, Any]]
Interpolation = Literal["bilinear", "bicubic"]
Place = Literal["centre", "top_left"]


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the batch.

    Attributes:
        scale_x: Pixels of the batch for one of the image, horizontally.
        scale_y: The same, vertically; a little different, since both sides are whole numbers.
        left: Column of the batch in which the image begins.
        top: Row of the batch in which it begins.
        height: Height of the given image, in pixels.
        width: Width of the given image, in pixels.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    height: int
    width: int

    @classmethod
    def scaled(cls, image: Tensor, scale: float) -> Placement:
        """At the top left, in whole pixels, one at least."""
        height, width = image.shape[-2:]
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
        return cls(new_width / width, new_height / height, 0, 0, height, width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in the batch."""
        return round(self.height * self.scale_y), round(self.width * self.scale_x)

    def forth(self, boxes: Tensor) -> Tensor:
        """Boxes in the image's pixels -> in the batch's, xyxy (N,4)."""
        scale, offset = self._map(boxes)
        return boxes * scale + offset

    def back(self, boxes: Tensor) -> Tensor:
        """Boxes in the batch's pixels -> in the image's, clipped to it, xyxy (N,4)."""
        scale, offset = self._map(boxes)
        return clip_boxes_to_image((boxes - offset) / scale, (self.height, self.width))

    def _map(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor([self.scale_x, self.scale_y] * 2), like.new_tensor([self.left, self.top] * 2)


class Resizing(nn.Module):
    """What both ways of resizing share: resampling, normalisation, and moving the boxes.

    Args:
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel.
        interpolation: How pixels are resampled.
    """

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise AttnlabError(f"mean and std have three numbers each, std above 0; got {mean} and {std}.")
        if interpolation not in ("bilinear", "bicubic"):
            raise AttnlabError(f"interpolation is 'bilinear' or 'bicubic', not '{interpolation}'.")
        self.interpolation = interpolation
        # Not persistent: weights of other projects have no such tensors.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @abstractmethod
    def lay_out(self, images: Images) -> tuple[list[Placement], Tensor]:
        """Where each image lies, and the canvas (B,3,H,W) of 0..1 that they are put on."""

    def forward(
        self, images: Images, targets: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[Tensor, Targets | None, list[Placement]]:
        """Batch (B,3,H,W), targets with boxes in its pixels, and where each image lies.

        Args:
            images: (3,h,w) each, or (B,3,h,w), in 0..1.
            targets: One dict an image; its ``boxes`` are xyxy in the image's pixels.
        """
        placements, canvas = self.lay_out(images)
        for image, field, at in zip(images, canvas, placements, strict=True):
            height, width = at.size
            if tuple(image.shape[-2:]) != (height, width):
                image = F.interpolate(
                    image[None], (height, width), mode=self.interpolation, antialias=True, align_corners=False
                )[0].clamp(0, 1)
            field[:, at.top : at.top + height, at.left : at.left + width] = image
        # The buffers have the network's dtype, also where that is not the images'.
        batch = ((canvas - self.mean) / self.std).to(self.mean.dtype)
        if targets is None:
            return batch, None, placements
        moved = [
            {**target, "boxes": at.forth(target["boxes"])} if "boxes" in target else dict(target)
            for target, at in zip(targets, placements, strict=True)
        ]
        return batch, moved, placements


class Letterbox(Resizing):
    """Each image as large as fits into a square, its shape kept; the rest is filled.

    Args:
        size: Side of the square in evaluation, and in training without ``train_sizes``; a multiple of 32.
        train_sizes: Smallest and largest side in training: each batch draws a multiple of 32 between them,
            both included, from torch's global generator. None: always ``size``.
        place: Where the image lies in the square.
        fill: Grey value around the image, 0..1.
        **options: Those of `Resizing`.

    Attributes:
        multi_scale: Whether training draws sizes; may be set.
    """

    def __init__(
        self,
        size: int,
        train_sizes: tuple[int, int] | None = None,
        place: Place = "centre",
        fill: float = 128 / 255,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        smallest, largest = train_sizes or (size, size)
        wrong = [side for side in (size, smallest, largest) if side < 32 or side % 32]
        if wrong or smallest > largest:
            raise AttnlabError(
                "size and train_sizes are multiples of 32, the smaller one first; "
                f"got {size} and {train_sizes}."
            )
        if place not in ("centre", "top_left"):
            raise AttnlabError(f"place is 'centre' or 'top_left', not '{place}'.")
        if not 0 <= fill <= 1:
            raise AttnlabError(f"fill is a grey value in 0..1, got {fill}.")
        self.size = size
        self.train_sizes = (smallest, largest)
        self.place = place
        self.fill = fill
        self.multi_scale = smallest < largest

    def lay_out(self, images: Images) -> tuple[list[Placement], Tensor]:
        """A square of ``fill``."""
        side = self.size
        if self.training and self.multi_scale:
            smallest, largest = self.train_sizes
            side = 32 * int(torch.randint(smallest // 32, largest // 32 + 1, ()))
        placements = []
        for image in images:
            at = Placement.scaled(image, side / max(image.shape[-2:]))
            if self.place == "centre":
                height, width = at.size
                at = replace(at, left=(side - width) // 2, top=(side - height) // 2)
            placements.append(at)
        return placements, images[0].new_full((len(images), 3, side, side), self.fill)


class ShortSide(Resizing):
    """The shorter side of each image to a length, the longer one limited; padded with the mean colour.

    The images of a batch lie at its top left, and are padded to the size of the largest, rounded up.

    Args:
        short: Length of the shorter side, in pixels.
        longest: The longer side is at most this; the shorter one is then below ``short``.
        divisor: Height and width of the batch are multiples of it, the network's largest stride.
        **options: Those of `Resizing`.
    """

    def __init__(self, short: int, longest: int, divisor: int = 32, **options: Any) -> None:
        super().__init__(**options)
        if not 1 <= short <= longest or divisor < 1:
            raise AttnlabError(
                "short is at least 1 and at most longest, divisor at least 1; "
                f"got {short}, {longest}, {divisor}."
            )
        self.short = short
        self.longest = longest
        self.divisor = divisor

    def lay_out(self, images: Images) -> tuple[list[Placement], Tensor]:
        """A rectangle of the mean colour."""
        placements = []
        for image in images:
            scale = min(self.short / min(image.shape[-2:]), self.longest / max(image.shape[-2:]))
            placements.append(Placement.scaled(image, scale))
        # Rounded up to multiples.
        height, width = (
            -(-max(sides) // self.divisor) * self.divisor
            for sides in zip(*(at.size for at in placements), strict=True)
        )
        canvas = self.mean.to(images[0].dtype).expand(3, height, width).repeat(len(images), 1, 1, 1)
        return placements, canvas
