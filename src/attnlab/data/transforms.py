"""The default transforms, each combining several steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random, getrandbits
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from attnlab.errors import AttnlabError


class RandomScaleCrop(v2.Transform):
    """Resize by a random factor, then crop a square, padded if the image is smaller.

    It crops first and resizes only the crop: the same distribution as resizing the whole image, up to
    rounding the window to whole pixels, at a fraction of the cost. Images are resized bilinearly with
    antialiasing, masks to the nearest pixel centre. Takes images, masks and boxes of one image, in any
    nesting that v2 transforms take.

    Args:
        size: Side of the output, in pixels.
        scale: Smallest and largest factor; drawn uniformly.
        fill: RGB value, 0..255, for padding images.
        mask_fill: Value for padding masks, 255 to ignore.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.5, 2.0),
        fill: tuple[int, int, int] = (124, 116, 104),
        mask_fill: int = 255,
    ) -> None:
        super().__init__()
        _refuse_size(size)
        if not 0 < scale[0] <= scale[1]:
            raise AttnlabError(f"scale is {tuple(scale)}; it must be (smallest, largest), both above 0.")
        self.size = size
        self.scale = scale
        self.fill = fill
        self.mask_fill = mask_fill
        self._blank = torch.tensor(fill, dtype=torch.uint8).expand(size, size, 3).contiguous()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the window and the position of its content in the square.

        Returns:
            ``top, left, height, width`` of the window in the image; ``out`` (height, width) of its content
            after resizing; ``pad`` (left, top, right, bottom) around it.
        """
        height, width = v2.query_size(flat_inputs)
        factor = float(torch.empty(1).uniform_(*self.scale))
        top, rows, before_y, out_rows = self._along(height, factor)
        left, columns, before_x, out_columns = self._along(width, factor)
        after_x, after_y = self.size - out_columns - before_x, self.size - out_rows - before_y
        window = {"top": top, "left": left, "height": rows, "width": columns}
        pad = [before_x, before_y, after_x, after_y]
        return {**window, "out": [out_rows, out_columns], "pad": pad}

    def _along(self, length: int, factor: float) -> tuple[int, int, int, int]:
        """One axis: the window's start and length, the padding before its content, the content's length."""
        scaled = max(1, round(length * factor))
        if scaled < self.size:
            return 0, length, _integer(self.size - scaled), scaled
        window = min(length, max(1, round(self.size / factor)))
        return _integer(length - window), window, 0, self.size

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop, resize and pad one image, mask or set of boxes."""
        out = F.crop(inpt, params["top"], params["left"], params["height"], params["width"])
        is_mask = isinstance(inpt, tv_tensors.Mask)
        if is_mask:
            out = tv_tensors.wrap(_resize_nearest(out, *params["out"]), like=inpt)
        else:
            if isinstance(inpt, tv_tensors.Image):
                out = tv_tensors.wrap(_interleaved(out), like=inpt)
            out = F.resize(out, params["out"], antialias=True)
        if not any(params["pad"]):
            return out
        if isinstance(out, tv_tensors.Image) and out.dtype == torch.uint8 and out.shape[-3] == 3:
            return tv_tensors.wrap(self._paste(out, params["pad"]), like=inpt)
        return F.pad(out, params["pad"], fill=self.mask_fill if is_mask else list(self.fill))

    def _paste(self, image: Tensor, pad: list[int]) -> Tensor:
        """Pad an image (3, h, w) with channels innermost in memory: much faster than F.pad."""
        frame = self._blank.clone()
        bottom, right = pad[1] + image.shape[-2], pad[0] + image.shape[-1]
        frame[pad[1] : bottom, pad[0] : right] = image.as_subclass(Tensor).permute(1, 2, 0)
        return frame.permute(2, 0, 1)


class RandomResizedCropFlip(nn.Module):
    """Crop a random part of an image, resize it to a square, and randomly flip it left to right.

    The windows are distributed as in ``torchvision.transforms.v2.RandomResizedCrop``: a share of the image's
    area and an aspect ratio within the given ranges; after ten windows that do not fit, the largest centred
    one of the nearest ratio. Going deeper with convolutions, arXiv:1409.4842, section 6. Resized bilinearly
    with antialiasing.

    It draws from Python's ``random``, ten times as fast as torch's operators.

    Args:
        size: Side of the output, in pixels.
        scale: Smallest and largest share of the image's area; drawn uniformly.
        ratio: Smallest and largest ratio of width to height; its logarithm is drawn uniformly.
        flip: Probability of a left-right flip, 0..1.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        _refuse_size(size)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise AttnlabError(
                f"scale is {tuple(scale)}; it must be (smallest, largest) share of the area, within 0..1."
            )
        if not 0 < ratio[0] <= ratio[1]:
            raise AttnlabError(f"ratio is {tuple(ratio)}; it must be (smallest, largest), both above 0.")
        refuse_flip(flip)
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.flip = flip

    def window(self, height: int, width: int, rng: Random) -> tuple[int, int, int, int]:
        """Draw a window in an image of this size: top, left, height and width, in pixels."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                return rng.randint(0, height - rows), rng.randint(0, width - columns), rows, columns
        rows, columns = height, width
        if width / height < self.ratio[0]:
            rows = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            columns = round(height * self.ratio[1])
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def forward(self, image: Tensor, rng: Random | None = None) -> Tensor:
        """Crop, resize and flip an image (3, H, W) to (3, size, size), drawing from ``random`` by default."""
        rng = Random(getrandbits(64)) if rng is None else rng
        plain = image.as_subclass(Tensor)
        top, left, rows, columns = self.window(plain.shape[-2], plain.shape[-1], rng)
        out = _resize(plain[:, top : top + rows, left : left + columns], self.size, self.size)
        if rng.random() < self.flip:
            out = out.flip(-1)
        return tv_tensors.wrap(out, like=image) if isinstance(image, tv_tensors.Image) else out


class ResizeCentreCrop(nn.Module):
    """Resize an image's shorter side, bilinearly with antialiasing, and crop the centre square.

    Args:
        resize: Length of the shorter side before the crop, in pixels. None does not resize.
        size: Side of the square, in pixels.
    """

    def __init__(self, resize: int | None, size: int) -> None:
        super().__init__()
        _refuse_size(size)
        if resize is not None and resize < size:
            raise AttnlabError(
                f"eval_resize {resize} is smaller than crop_size {size}, so the crop would not fit. Set "
                "eval_resize to at least crop_size."
            )
        self.resize = resize
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """Resize and crop an image (3, H, W) to (3, size, size).

        Raises:
            AttnlabError: It is smaller than the square and not resized.
        """
        out = image.as_subclass(Tensor)
        height, width = out.shape[-2:]
        shorter = min(height, width)
        if self.resize not in (None, shorter):
            height, width = self.resize * height // shorter, self.resize * width // shorter
            out = _resize(out, height, width)
        if min(height, width) < self.size:
            raise AttnlabError(too_small(height, width, self.size))
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        out = out[:, top : top + self.size, left : left + self.size]
        return tv_tensors.wrap(out, like=image) if isinstance(image, tv_tensors.Image) else out


def too_small(height: int, width: int, size: int) -> str:
    """The message about an image that is too small for a crop."""
    return (
        f"{width} x {height} pixels is smaller than the crop of {size} x {size}. Lower data.crop_size, or "
        "resize images first with data.eval_resize."
    )


def refuse_replaced(options: Mapping[str, Any], instead: str) -> None:
    """Reject options of the default transforms if ``train_transforms`` replaces them.

    Args:
        options: Values by name; None means not set.
        instead: The transform that has the same effect.
    """
    for name, value in options.items():
        if value is not None:
            raise AttnlabError(
                f"data.{name} applies to the default transforms, which data.train_transforms replaces. "
                f"Leave it out, or add {instead} to the transforms."
            )


def refuse_flip(flip: float) -> None:
    """Reject a flip that is not a probability, 0..1."""
    if not 0 <= flip <= 1:
        raise AttnlabError(f"flip is {flip}; it must be a probability, 0 to 1.")


def _refuse_size(size: int) -> None:
    if size < 1:
        raise AttnlabError(f"crop_size is {size}; it must be at least 1 pixel.")


def _integer(most: int) -> int:
    """A random integer, 0 … most."""
    return int(torch.randint(0, most + 1, ()))


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image (C, H, W) bilinearly with antialiasing, keeping channels innermost in memory.

    Torch's fast kernel needs a batch with ``channels_last`` strides; ``image[None]`` does not have them, and
    takes half as long again.
    """
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return functional.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]


def _interleaved(image: Tensor) -> Tensor:
    """An image (…, C, H, W) stored contiguously as (…, H, W, C).

    Without this copy, torch would resize a window of a larger image into separate planes, and merging these
    in the batch takes longer.
    """
    return image.as_subclass(Tensor).movedim(-3, -1).contiguous().movedim(-1, -3)


def _resize_nearest(mask: Tensor, height: int, width: int) -> Tensor:
    """(…, H, W) -> (…, height, width), the values at the nearest pixel centres.

    Aligned with bilinear resizing, unlike ``mode="nearest"``, and fast.
    """
    # NumPy's take is ten times as fast as torch's index_select on bytes.
    array = mask.as_subclass(Tensor).numpy()
    rows = ((np.arange(height) + 0.5) * (array.shape[-2] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (array.shape[-1] / width)).astype(np.intp)
    return torch.from_numpy(array.take(columns, axis=-1).take(rows, axis=-2))
