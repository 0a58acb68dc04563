"""Resizes images to a detector's batch, and maps its boxes back.

A detector contains one of these modules. It takes images (3,h,w) with values in 0..1 and returns detections
in the input's pixels; size, padding and normalisation are internal. Images are downscaled with antialiasing,
as in PIL, and not resampled if they have the right size.
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
class ImageInBatch:
    """Scale and position of an image in the batch.

    Attributes:
        scale_x: Horizontal scale, from the image to the batch.
        scale_y: Vertical scale; slightly different, since both sides are rounded.
        left: First column of the image in the batch.
        top: First row of the image in the batch.
        height: Height of the original image, in pixels.
        width: Width of the original image, in pixels.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    height: int
    width: int

    @classmethod
    def scaled(cls, image: Tensor, scale: float) -> ImageInBatch:
        """At the top left, rounded to whole pixels, at least one."""
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
    """Base class of resizing: resampling, normalisation, and mapping of boxes.

    Args:
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel.
        interpolation: Resampling method.
    """

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise AttnlabError(
                f"mean and std must have three numbers each, std above 0; got {mean} and {std}."
            )
        if interpolation not in ("bilinear", "bicubic"):
            raise AttnlabError(f"interpolation must be 'bilinear' or 'bicubic', got '{interpolation}'.")
        self.interpolation = interpolation
        # Not persistent: other projects' weights lack such tensors.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @abstractmethod
    def lay_out(self, images: Images) -> tuple[list[ImageInBatch], Tensor]:
        """The position of each image, and the empty canvas (B,3,H,W), in 0..1."""

    def forward(
        self, images: Images, targets: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[Tensor, Targets | None, list[ImageInBatch]]:
        """The batch (B,3,H,W), targets with boxes in its pixels, and the position of each image.

        Args:
            images: (3,h,w) each, or (B,3,h,w), in 0..1.
            targets: One dict per image; its ``boxes`` are xyxy in the image's pixels.
        """
        locations, canvas = self.lay_out(images)
        for image, field, at in zip(images, canvas, locations, strict=True):
            height, width = at.size
            if tuple(image.shape[-2:]) != (height, width):
                image = F.interpolate(
                    image[None], (height, width), mode=self.interpolation, antialias=True, align_corners=False
                )[0].clamp(0, 1)
            field[:, at.top : at.top + height, at.left : at.left + width] = image
        # The buffers have the network's dtype, even if the images' differs.
        batch = ((canvas - self.mean) / self.std).to(self.mean.dtype)
        if targets is None:
            return batch, None, locations
        moved = [
            {**target, "boxes": at.forth(target["boxes"])} if "boxes" in target else dict(target)
            for target, at in zip(targets, locations, strict=True)
        ]
        return batch, moved, locations


class Letterbox(Resizing):
    """Fit each image into a square, keeping its aspect ratio; the rest is filled.

    Args:
        size: Side of the square in evaluation, and in training without ``train_sizes``; a multiple of 32.
        train_sizes: Smallest and largest side in training: each batch draws a multiple of 32 between them,
            both included, from torch's global generator. None: always ``size``.
        place: Position of the image in the square.
        fill: Grey value around the image, 0..1.
        **options: Those of `Resizing`.

    Attributes:
        multi_scale: Whether training draws sizes; can be set.
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
                f"size and train_sizes must be multiples of 32, the smaller one first; got {size} and "
                f"{train_sizes}."
            )
        if place not in ("centre", "top_left"):
            raise AttnlabError(f"place must be 'centre' or 'top_left', got '{place}'.")
        if not 0 <= fill <= 1:
            raise AttnlabError(f"fill must be a grey value in 0..1, got {fill}.")
        self.size = size
        self.train_sizes = (smallest, largest)
        self.place = place
        self.fill = fill
        self.multi_scale = smallest < largest

    def lay_out(self, images: Images) -> tuple[list[ImageInBatch], Tensor]:
        """A square of ``fill``."""
        side = self.size
        if self.training and self.multi_scale:
            smallest, largest = self.train_sizes
            side = 32 * int(torch.randint(smallest // 32, largest // 32 + 1, ()))
        locations = []
        for image in images:
            at = ImageInBatch.scaled(image, side / max(image.shape[-2:]))
            if self.place == "centre":
                height, width = at.size
                at = replace(at, left=(side - width) // 2, top=(side - height) // 2)
            locations.append(at)
        return locations, images[0].new_full((len(images), 3, side, side), self.fill)


class ShortSide(Resizing):
    """Resize each image's shorter side, with a limit on the longer one; pad with the mean colour.

    Images are placed at the top left and padded to the size of the largest, rounded up.

    Args:
        short: Length of the shorter side, in pixels.
        longest: Limit of the longer side; takes precedence over ``short``.
        divisor: The network's largest stride; height and width of the batch are multiples of it.
        **options: Those of `Resizing`.
    """

    def __init__(self, short: int, longest: int, divisor: int = 32, **options: Any) -> None:
        super().__init__(**options)
        if not 1 <= short <= longest or divisor < 1:
            raise AttnlabError(
                f"short must be at least 1 and at most longest, divisor at least 1; got {short}, {longest}, "
                f"{divisor}."
            )
        self.short = short
        self.longest = longest
        self.divisor = divisor

    def lay_out(self, images: Images) -> tuple[list[ImageInBatch], Tensor]:
        """A rectangle of the mean colour."""
        locations = []
        for image in images:
            scale = min(self.short / min(image.shape[-2:]), self.longest / max(image.shape[-2:]))
            locations.append(ImageInBatch.scaled(image, scale))
        # Rounded up to multiples.
        height, width = (
            -(-max(sides) // self.divisor) * self.divisor
            for sides in zip(*(at.size for at in locations), strict=True)
        )
        canvas = self.mean.to(images[0].dtype).expand(3, height, width).repeat(len(images), 1, 1, 1)
        return locations, canvas
