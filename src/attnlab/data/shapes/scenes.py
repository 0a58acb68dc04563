"""Scenes drawn from a seed: textured shapes on a textured background, with full annotations.

A `Scene` is a picture, its index mask and its objects with boxes and visibility, of no file format. Writers
turn scenes into data sets: `attnlab.data.shapes.segmentation` into Pascal VOC's layout.

Colour and texture are independent of an object's form and shared with the background, so only the outline
tells the class. The background has clutter: smooth blobs and strokes without class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnlab.data.shapes.forms import FORMS, FloatMap, form_area

SCENES_VERSION = 1
"""Version; increased whenever the same options and seed draw other scenes."""

BORDER = 255
"""The mask value of the ignored band along outlines, as in Pascal VOC."""


@dataclass(frozen=True)
class SceneOptions:
    """Options of the scenes.

    Attributes:
        size: Side of the square image in pixels.
        forms: Names out of `FORMS`; class k of the mask is ``forms[k - 1]``, 0 is the ground.
        max_objects: Objects in a scene: from 2 (1 where this is 1) to this number.
        clutter: Density of background blobs and strokes without class, 0 (none) to 1.
        object_size: Smallest and largest diameter of an object relative to the side. Four of five objects are
            in the upper half of this range.
    """

    size: int = 128
    forms: tuple[str, ...] = ("disc", "ring", "triangle", "star", "cross")
    max_objects: int = 4
    clutter: float = 0.3
    object_size: tuple[float, float] = (0.2, 0.55)


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        label: Class index, 1 … number of forms.
        name: The form's name.
        box: Visible extent in pixels as (x0, y0, x1, y1); x1 and y1 are the first pixels outside.
        area: Number of visible pixels, border included.
        truncated: The object is cut off by the edge of the image.
        occluded: Another object hides part of it.
        difficult: Too little is visible: less than 35%, or fewer than 24 pixels.
    """

    label: int
    name: str
    box: tuple[int, int, int, int]
    area: int
    truncated: bool
    occluded: bool
    difficult: bool


@dataclass(frozen=True)
class Scene:
    """An image and its annotations.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) uint8, class indices, with `BORDER` along the objects' outlines.
        instances: (H, W) uint8, 0 for the ground, k for the pixels of ``objects[k - 1]``, without border.
        objects: The visible objects, from back to front.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    objects: list[SceneObject]


@dataclass(frozen=True)
class _Placed:
    """An object with its place: distance to its outline and area, in pixels, as if nothing hid it."""

    label: int
    distance: FloatMap
    area: float


def draw_scene(options: SceneOptions, seed: int, *stream: int) -> Scene:
    """Draw one scene, the same for the same arguments, in any order and by any number of processes.

    Args:
        options: What it looks like.
        seed: The data set's seed.
        *stream: Numbers that name the scene, e.g. split and position.
    """
    painter = _Painter(options, np.random.default_rng([seed, *stream]))
    painter.add_clutter()
    least = min(2, options.max_objects)
    for _ in range(painter.rng.integers(least, options.max_objects + 1)):
        painter.add_object()
    return painter.scene()


class _Painter:
    """Paints one scene from back to front, tracking its objects."""

    def __init__(self, options: SceneOptions, rng: np.random.Generator) -> None:
        self.options, self.rng, self.size = options, rng, options.size
        self.y, self.x = np.mgrid[: self.size, : self.size].astype(np.float32) + 0.5
        self.canvas, self.ground = self.texture()
        self.placed: list[_Placed] = []
        self.instances = np.zeros((self.size, self.size), np.uint8)
        self.border = np.zeros((self.size, self.size), bool)

    def uniform(self, low: float, high: float) -> float:
        """A random number as a plain float, so that arrays it meets stay float32."""
        return float(self.rng.uniform(low, high))

    # Colours and textures

    def colour(self) -> FloatMap:
        """A colour of the one palette that ground and objects share: any hue, neither black nor white."""
        wheel = np.abs((self.uniform(0, 6) - np.array([0, 2, 4]) + 3) % 6 - 3)
        pure = np.clip(2 - wheel, 0, 1)
        bright, saturated = self.uniform(0.3, 0.95), self.uniform(0.15, 0.75)
        return (bright * (1 - saturated * (1 - pure))).astype(np.float32)

    def noise(self) -> FloatMap:
        """Plane waves of random direction added up: smooth and without a grid, mostly within -1..1."""
        total = np.zeros_like(self.x)
        for _ in range(4):
            angle, phase = self.uniform(0, math.tau), self.uniform(0, math.tau)
            waves = self.uniform(0.5, 2.5) * math.tau / self.size
            total += np.sin(self.x * (waves * math.cos(angle)) + self.y * (waves * math.sin(angle)) + phase)
        return total / 2.5

    def texture(self, avoid: FloatMap | None = None) -> tuple[FloatMap, FloatMap]:
        """Two related colours in stripes, checks, grain or clouds (H, W, 3), and the first of them (3,).

        Args:
            avoid: A colour (3,) that the texture must stand out from.
        """
        first = self.colour()
        while avoid is not None and np.abs(first - avoid).max() < 0.25:
            first = self.colour()
        second = first * self.uniform(0.6, 0.9) + self.rng.uniform(-0.08, 0.08, 3).astype(np.float32)
        turn, phase = self.uniform(0, math.tau), self.uniform(0, math.tau)
        frequency = math.tau / (self.uniform(0.05, 0.14) * self.size)
        along = (self.x * math.cos(turn) + self.y * math.sin(turn)) * frequency + phase
        across = (self.y * math.cos(turn) - self.x * math.sin(turn)) * frequency
        match self.rng.integers(4):
            case 0:
                wave = np.sin(along)
            case 1:
                wave = 1.5 * np.sin(along) * np.sin(across)
            case 2:
                wave = np.sin(along + 1.5 * self.noise())
            case _:
                wave = 1.5 * self.noise()
        share = (0.5 + 0.5 * np.tanh(2 * wave))[..., None]
        light = 1 + 0.12 * self.noise()[..., None]
        return (first + (second - first) * share) * light, first

    # What lies on the ground

    def lay(self, distance: FloatMap, colour: FloatMap) -> None:
        """Cover the inside of an outline with a colour or texture, with a smooth edge."""
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        self.canvas += cover * (colour - self.canvas)

    def add_clutter(self) -> None:
        """Blobs of wavy outline and bent strokes: contrast and edges that belong to no class."""
        for _ in range(self.rng.binomial(12, self.options.clutter)):
            right, down = self.x - self.uniform(0, self.size), self.y - self.uniform(0, self.size)
            turn = self.uniform(0, math.tau)
            if self.rng.random() < 0.5:
                angle, radius = np.arctan2(down, right) + turn, self.uniform(0.04, 0.1) * self.size
                waves = sum(self.uniform(-0.2, 0.2) * np.sin(k * angle) for k in (1, 2, 3))
                distance = np.hypot(right, down) - radius * (1 + waves)
            else:
                along = right * math.cos(turn) + down * math.sin(turn)
                across = down * math.cos(turn) - right * math.sin(turn)
                bend, length = self.uniform(-1.5, 1.5) / self.size, self.uniform(0.1, 0.3) * self.size
                thick = np.abs(across + bend * along**2) - 0.008 * self.size
                distance = np.maximum(thick, np.abs(along) - length)
            self.lay(distance, self.ground + 0.7 * (self.colour() - self.ground))

    def add_object(self) -> None:
        """Place an object and paint it with its shadow; do nothing where no place is found."""
        item = self.place()
        if item is None:
            return
        self.cast_shadow(item.distance)
        skin, _ = self.texture(avoid=self.ground)
        rim = 1 - 0.25 * np.clip(1 + item.distance / (0.015 * self.size), 0, 1)
        self.lay(item.distance, skin * rim[..., None])

        self.placed.append(item)
        inside = item.distance < 0
        self.instances[inside] = len(self.placed)
        self.border = (self.border & ~inside) | (np.abs(item.distance) <= max(0.75, self.size / 128))

    def place(self) -> _Placed | None:
        """Choose form and place so that at least a third of each earlier object stays visible.

        None is where eight tries found no such place.
        """
        low, high = self.options.object_size
        label = int(self.rng.integers(len(self.options.forms))) + 1
        name = self.options.forms[label - 1]
        for _ in range(8):
            least = low if self.rng.random() < 0.2 else (low + high) / 2
            radius = self.uniform(least, high) * self.size / 2
            margin = 0.5 * radius
            centre_x, centre_y = (self.uniform(margin, self.size - margin) for _ in range(2))
            turn, stretch = self.uniform(0, math.tau), self.uniform(0.85, 1.0)
            right, down = (self.x - centre_x) / radius, (self.y - centre_y) / radius
            along = right * math.cos(turn) + down * math.sin(turn)
            across = (down * math.cos(turn) - right * math.sin(turn)) / stretch
            distance = FORMS[name](along, across) * radius
            visible = np.bincount(self.instances[distance >= 0], minlength=len(self.placed) + 1)
            if all(visible[k] >= item.area / 3 for k, item in enumerate(self.placed, start=1)):
                return _Placed(label, distance, form_area(name) * radius**2 * stretch)
        return None

    def cast_shadow(self, distance: FloatMap) -> None:
        """Darken the canvas softly, down and to the right of an outline."""
        soft = 0.03 * self.size
        step = max(1, round(soft / 2))
        moved = np.pad(distance, ((step, 0), (step, 0)), mode="edge")[: self.size, : self.size]
        self.canvas *= 1 - 0.4 * np.clip(0.5 - moved / (2 * soft), 0, 1)[..., None]

    # The result

    def scene(self) -> Scene:
        """The finished scene, with a little sensor noise."""
        noisy = self.canvas + self.rng.standard_normal(self.canvas.shape, np.float32) * 0.012
        image = (noisy.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        mask = np.array([0, *(item.label for item in self.placed)], np.uint8)[self.instances]
        mask[self.border] = BORDER
        instances, objects = np.zeros_like(self.instances), []
        for number, item in enumerate(self.placed, start=1):
            here = self.instances == number
            if here.any():
                objects.append(self.describe(item, here))
                instances[here] = len(objects)
        return Scene(image, mask, instances, objects)

    def describe(self, item: _Placed, here: NDArray[np.bool_]) -> SceneObject:
        """What is known about an object that is visible at ``here`` (H, W)."""
        rows, columns = np.flatnonzero(here.any(1)).tolist(), np.flatnonzero(here.any(0)).tolist()
        inside, area = item.distance < 0, int(here.sum())
        return SceneObject(
            label=item.label,
            name=self.options.forms[item.label - 1],
            box=(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1),
            area=area,
            truncated=bool(inside[[0, -1]].any() or inside[:, [0, -1]].any()),
            occluded=area < int(inside.sum()),
            difficult=area < max(24, 0.35 * item.area),
        )
