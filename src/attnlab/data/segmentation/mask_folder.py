"""Images and masks in any folders, with masks of numbers or colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from attnlab.data.folders import names_in
from attnlab.data.names import listed
from attnlab.data.segmentation.base import SegmentationDataModule
from attnlab.data.segmentation.coded_masks import (
    IGNORED,
    CodedMaskReader,
    Colour,
    check_colours,
    colour_code,
    read_colours,
)
from attnlab.data.segmentation.paired_folders import SPLIT, pairs_in, split_folder, validated_on
from attnlab.data.segmentation.sets import ImageAndMask
from attnlab.errors import AttnlabError, unknown

_LARGEST = 65535


class MaskFolderDataModule(SegmentationDataModule):
    """Segmentation data with images and masks in two folder trees of any name.

    An image and its mask have the same relative path except for the suffix. Masks are palette or grey images
    (8 or 16 bits) of class indices, with 255 for "ignore", unless ``binary``, ``label_map`` or ``colours`` is
    set. Images are read as stored; their EXIF orientation is ignored, as for all data with masks.

    Args:
        root: Folder that all other paths are relative to.
        class_names: Names of the classes 0, 1, …, including the background. None means the names in
            ``colours``.
        images: Folder of the images, searched recursively; ``{split}`` in it stands for the split's folder.
        masks: Folder of the masks, likewise.
        image_suffix: End of the images' names, such as ``_leftImg8bit.png``; without a file extension, any
            image format matches.
        mask_suffix: End of the masks' names, such as ``_gtFine_labelTrainIds.png``.
        train_folder: Value of ``{split}`` for training.
        val_folder: Value of ``{split}`` for validation; ``valid``, ``validation``, ``dev`` and ``eval`` are
            found, too.
        test_folder: Value of ``{split}`` for the test; None means the validation split.
        val_share: Share of the training images, between 0 and 1, to use for validation instead, if there is
            no validation folder. The choice depends only on the names and ``val_seed``.
        val_seed: Seed of this choice.
        binary: Masks are black and white: 0 is class 0, 255 is class 1.
        label_map: Class index, or 255 for "ignore", by mask value.
        ignore: Mask values to ignore, besides 255.
        colours: For coloured masks: the red, green and blue of each class by name, or in the order of
            ``class_names``; or a file with them, absolute or relative to ``root``: CamVid's
            ``label_colors.txt``, a ``class_dict.csv`` or CVAT's ``labelmap.txt``. Colours of names not in
            ``class_names`` are ignored.
        unlisted: What to do about unknown mask values and colours: ``error``, or ``ignore`` such pixels.
        **options: The other options of `SegmentationDataModule`.

    Attributes:
        palette: The classes' colours for coloured masks, else Pascal VOC's.
    """

    def __init__(
        self,
        root: str = "data",
        class_names: list[str] | None = None,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        image_suffix: str = "",
        mask_suffix: str = ".png",
        train_folder: str = "train",
        val_folder: str = "val",
        test_folder: str | None = None,
        val_share: float | None = None,
        val_seed: int = 0,
        binary: bool = False,
        label_map: dict[int, int] | None = None,
        ignore: list[int] | None = None,
        colours: dict[str, list[int]] | list[list[int]] | str | None = None,
        unlisted: Literal["error", "ignore"] = "error",
        **options: Any,
    ) -> None:
        table = None if colours is None else _table(colours, class_names, root)
        if class_names is None:
            if table is None:
                raise AttnlabError(
                    "data.class_names must name the classes 0, 1, …, including the background."
                )
            class_names = list(table)
        super().__init__(root, class_names, **options)
        if (SPLIT in images) != (SPLIT in masks):
            raise AttnlabError(
                f"data.images is '{images}' and data.masks is '{masks}': '{SPLIT}', which stands for the "
                "split's folder, must be in both or in neither."
            )
        if SPLIT not in images and test_folder is not None:
            raise AttnlabError(
                f"data.test_folder is '{test_folder}', but data.images has no '{SPLIT}' to replace."
            )
        if val_share is not None and not 0 < val_share < 1:
            raise AttnlabError(f"data.val_share is {val_share}; it must be between 0 and 1.")
        if mask_suffix.lower().endswith((".jpg", ".jpeg")):
            raise AttnlabError(
                f"data.mask_suffix is '{mask_suffix}', but JPEG compression changes pixel values and thus "
                "classes. Save masks as PNG."
            )
        self.images = images
        self.masks = masks
        self.image_suffix = image_suffix
        self.mask_suffix = mask_suffix
        self.folders = {"train": train_folder, "val": val_folder, "test": test_folder}
        self.val_share = val_share
        self.val_seed = val_seed
        self._indices = not binary and label_map is None and table is None
        self._table_to_keep = table if isinstance(colours, str) else None
        if table is not None:
            self.palette = [list(table[name]) for name in self.class_names]
        reader = _reader(self.class_names, binary, label_map, ignore, table, unlisted)
        self.read_mask = replace(reader, max_pixels=self.max_pixels)

    def remembered(self) -> dict[str, Any]:
        """The classes and colours read from a file, so that a checkpoint suffices for prediction."""
        if self._table_to_keep is None:
            return {}
        colours = {name: list(colour) for name, colour in self._table_to_keep.items()}
        return {"class_names": self.class_names, "colours": colours}

    def items(self, split: str) -> list[ImageAndMask]:
        """The images and masks of a split, sorted by name.

        Raises:
            AttnlabError: A folder is missing or has no images, no image has a mask, masks have no images and
                ``on_bad_image`` is ``"error"``, or there is no validation data.
        """
        if split == "test" and self.folders["test"] is None:
            split = "val"
        if split == "test" or (self.val_share is None and SPLIT in self.images):
            return self._pairs(split)
        val = split_folder(Path(self.root), self.images, "val", self.folders["val"] or "")
        if SPLIT in self.images and val is not None:
            raise AttnlabError(
                f"data.val_share is {self.val_share}, but there is also the validation folder '{val}': "
                "leave one out."
            )
        if self.val_share is None:
            raise AttnlabError(
                f"There is no '{SPLIT}' in data.images ('{self.images}'), so there is no validation data. "
                f"Set --data.val_share, e.g. 0.2, or add '{SPLIT}' to the pattern."
            )
        items = self._pairs("train")
        if len(items) < 2:
            raise AttnlabError(
                f"There is only one image in '{self.root}', which data.val_share cannot split."
            )
        chosen = validated_on([item.name for item in items], self.val_share, self.val_seed)
        return [item for item in items if (item.name in chosen) == (split == "val")]

    def problems(self, split: str, items: list[ImageAndMask]) -> dict[int, str]:
        """Problems of images and masks, by position; missing masks whatever ``check`` says.

        Raises:
            AttnlabError: All masks hold only 0 and 255, and ``binary`` is not set.
        """
        try:
            found = super().problems(split, items)
        except AttnlabError as error:
            if not self._indices:
                raise
            raise AttnlabError(f"{error} Or set --data.binary true if they are binary.") from error
        return found | {
            position: f"The image '{item.image}' has no mask: '{item.mask}' does not exist."
            for position, item in enumerate(items)
            if not item.mask.is_file()
        }

    def _pairs(self, split: str) -> list[ImageAndMask]:
        images, masks = self._folder("images", split), self._folder("masks", split)
        items, surplus = pairs_in(images, masks, self.image_suffix, self.mask_suffix)
        if surplus:
            some = listed([mask.name for mask in surplus], 3)
            text = f"{len(surplus)} masks in '{masks}' have no image in '{images}', e.g. {some}."
            if self.on_bad_image == "error":
                raise AttnlabError(
                    f"{text} Add the images, remove the masks, or skip them with --data.on_bad_image skip."
                )
            if text not in self._complained:
                self._complained.add(text)
                rank_zero_warn(f"{text} They are skipped.")
        return items

    def _folder(self, kind: str, split: str) -> Path:
        """The folder of a split's ``images`` or ``masks``, which must exist."""
        root, name = Path(self.root), self.folders[split] or ""
        pattern = self.images if kind == "images" else self.masks
        if folder := split_folder(root, pattern, split, name):
            return folder
        usual = root / pattern.replace(SPLIT, name)
        above = next((place for place in usual.parents if place.is_dir()), Path())
        share = ", or use a share of the training images with --data.val_share, e.g. 0.2"
        raise AttnlabError(
            f"There is no folder '{usual}' with the {kind} of the '{split}' split. '{above}' contains: "
            f"{listed(names_in(above), 12) or 'nothing'}. Set --data.root, --data.{kind} or "
            f"--data.{split}_folder{share if (kind, split) == ('images', 'val') else ''}."
        )


def _table(
    colours: dict[str, list[int]] | list[list[int]] | str, class_names: list[str] | None, root: str
) -> dict[str, Colour]:
    """All known colours, by name."""
    if isinstance(colours, str):
        table = read_colours(Path(root) / colours)
    elif isinstance(colours, dict):
        table = check_colours(colours, "data.colours")
    elif class_names is None or len(class_names) != len(colours):
        number = 0 if class_names is None else len(class_names)
        raise AttnlabError(
            f"data.colours lists {len(colours)} colours, but data.class_names has {number} names. Give one "
            "colour per class, or the colours by name."
        )
    else:
        table = check_colours(dict(zip(class_names, colours, strict=True)), "data.colours")
    if not table:
        raise AttnlabError("data.colours is empty.")
    for name in class_names or ():
        if name not in table:
            raise unknown("class", name, table, "Each of data.class_names needs a colour in data.colours.")
    return table


def _reader(
    class_names: list[str],
    binary: bool,
    label_map: dict[int, int] | None,
    ignore: list[int] | None,
    table: dict[str, Colour] | None,
    unlisted: Literal["error", "ignore"],
) -> CodedMaskReader:
    """The mask reader for the options.

    Raises:
        AttnlabError: Options contradict each other, or name an unknown class.
    """
    said = {"binary": binary, "label_map": label_map is not None, "colours": table is not None}
    both = [f"data.{name}" for name, given in said.items() if given]
    if len(both) > 1:
        raise AttnlabError(f"{' and '.join(both)} are both set, but masks have only one kind: leave one out.")
    if unlisted not in ("error", "ignore"):
        raise AttnlabError(f"data.unlisted is '{unlisted}'; it must be error or ignore.")
    number = len(class_names)
    if table is not None:
        if ignore:
            raise AttnlabError(
                "data.ignore lists values, but masks are coloured: leave colours to ignore out of "
                "data.class_names instead."
            )
        labels = {name: label for label, name in enumerate(class_names)}
        codes = tuple((colour_code(colour), labels.get(name, IGNORED)) for name, colour in table.items())
        return CodedMaskReader("colours", codes, unlisted)
    if binary:
        if number != 2:
            raise AttnlabError(
                f"data.binary is set, but data.class_names has {number} names: a binary mask has two "
                "classes, background first."
            )
        classes = {0: 0, 255: 1, _LARGEST: 1}
    elif label_map is not None:
        for value, label in label_map.items():
            if not (0 <= label < number or label == IGNORED):
                raise AttnlabError(
                    f"data.label_map maps {value} to class {label}; with {number} classes it must be 0 to "
                    f"{number - 1}, or {IGNORED} (ignore)."
                )
        classes = {IGNORED: IGNORED, **label_map}
    else:
        classes = {**{label: label for label in range(number)}, IGNORED: IGNORED}
    for value in ignore or ():
        if (binary or label_map is not None) and classes.get(value, IGNORED) != IGNORED:
            raise AttnlabError(
                f"data.ignore contains {value}, which is also mapped to class {classes[value]}."
            )
        classes[value] = IGNORED
    return CodedMaskReader("binary" if binary else "index", tuple(sorted(classes.items())), unlisted)
