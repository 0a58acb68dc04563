from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from attnlab.data.images import read_image, read_mask
from attnlab.errors import AttnlabError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (20, 30, 3), np.uint8)
GREY = COLOURS[..., 0]


def as_array(image: torch.Tensor) -> np.ndarray:
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def smooth_photo(mode: str = "RGB") -> Image.Image:
    coarse = Image.fromarray(RNG.integers(0, 256, (4, 6, 3), np.uint8))
    return coarse.resize((50, 37), Image.Resampling.BICUBIC).convert(mode)


def test_rgb_and_grey_png_are_exact(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    assert np.array_equal(as_array(read_image(tmp_path / "a.png")), COLOURS)
    assert np.array_equal(as_array(read_image(tmp_path / "b.png")), np.stack([GREY] * 3, -1))


def test_one_bit(tmp_path):
    bits = GREY > 128
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(as_array(read_image(tmp_path / "a.png"))[..., 1], bits * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_is_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 128, 257, 32768, 65535, 40000]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(as_array(read_image(tmp_path / f"a.{suffix}"))[..., 2], expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path, mode):
    picture = Image.fromarray(COLOURS).convert(mode)
    alpha = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 0)).resize((30, 20), 0)
    picture.putalpha(alpha)
    picture.save(tmp_path / "a.png")
    read = as_array(read_image(tmp_path / "a.png"))
    assert (read[:, :15] == 255).all()
    opaque = np.asarray(Image.fromarray(COLOURS).convert(mode).convert("RGB"))
    assert np.array_equal(read[:, 15:], opaque[:, 15:])


def test_palette_with_and_without_transparency(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", transparency=1)
    assert as_array(read_image(tmp_path / "a.png")).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert as_array(read_image(tmp_path / "b.png")).tolist() == [[[10, 20, 30], [255] * 3, [70, 80, 90]]]


def test_cmyk_jpeg_has_the_right_polarity(tmp_path):
    """Pillow writes Adobe's inverted CMYK, as Photoshop does."""
    photo = smooth_photo()
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    read = as_array(read_image(tmp_path / "a.jpg")).astype(int)
    assert np.abs(read - np.asarray(photo)).mean() < 4


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_equals_pillow_in_all_exif_orientations(tmp_path, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth_photo(mode).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
        as_stored = np.asarray(stored.convert("RGB"))
    assert np.array_equal(as_array(read_image(tmp_path / "a.jpg")), upright)
    assert np.array_equal(as_array(read_image(tmp_path / "a.jpg", exif=False)), as_stored)


def test_a_wrong_suffix_does_not_matter(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(as_array(read_image(tmp_path / "a.jpg")), COLOURS)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_files_cut_short_are_named(tmp_path, suffix, keep):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(COLOURS).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(AttnlabError, match=rf"cut\.{suffix}.*Get the file again"):
        read_image(path)


@pytest.mark.real_data
def test_a_real_truncated_photograph_is_named(shared_data):
    with pytest.raises(AttnlabError, match="truncated_2010_006034"):
        read_image(shared_data / "broken" / "truncated_2010_006034.jpg")


def test_missing_files_and_pictures_without_range_are_named(tmp_path):
    with pytest.raises(AttnlabError, match=r"Cannot open .*nothing\.jpg"):
        read_image(tmp_path / "nothing.jpg")
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(AttnlabError, match=r"depth\.tif.*without a fixed range"):
        read_image(tmp_path / "depth.tif")


@pytest.mark.parametrize("mode", ["P", "L"])
def test_masks_are_indices(tmp_path, mode):
    indices = np.array([[0, 1, 20, 255]], np.uint8)
    picture = Image.fromarray(indices, mode=mode)
    if mode == "P":
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == indices.tolist()


def test_a_mask_of_colours_is_refused(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "m.png")
    with pytest.raises(AttnlabError, match=r"m\.png.*class indices"):
        read_mask(tmp_path / "m.png")


KINDS = (
    {"progressive": True},
    {"quality": 20, "optimize": True},
    {"restart_marker_blocks": 2},
    {"comment": b"a remark"},
    {"icc_profile": b"\0" * 70_000},
)
COLOUR_KINDS = ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"keep_rgb": True})


@pytest.mark.parametrize(
    ("mode", "options"),
    [("L", kind) for kind in KINDS] + [("RGB", kind) for kind in (*KINDS, *COLOUR_KINDS)],
)
def test_jpegs_of_all_kinds_are_as_pillow_reads_them(tmp_path, mode, options):
    smooth_photo(mode).resize((131, 77)).save(tmp_path / "a.jpg", **options)
    with Image.open(tmp_path / "a.jpg") as stored:
        expected = np.asarray(stored.convert("RGB")).astype(int)
    assert np.abs(as_array(read_image(tmp_path / "a.jpg")) - expected).max() <= 1


def test_jpegs_are_read_without_torchvisions_operator_too(tmp_path, monkeypatch):
    smooth_photo().save(tmp_path / "a.jpg")
    swift = read_image(tmp_path / "a.jpg")
    monkeypatch.setattr("attnlab.data.images._JPEG_OP", None)
    assert (read_image(tmp_path / "a.jpg").int() - swift.int()).abs().max() <= 1


def test_plain_jpegs_do_not_go_through_pillow(tmp_path, monkeypatch):
    """Pictures of photo tools hold EXIF data that says upright, or mentions no orientation at all."""
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010F] = "A camera's maker"
    smooth_photo().save(tmp_path / "a.jpg", exif=exif)
    monkeypatch.setattr("attnlab.data.images._decode", None)
    assert read_image(tmp_path / "a.jpg").shape == (3, 37, 50)


def test_orientation_in_xmp_counts(tmp_path):
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    smooth_photo().save(tmp_path / "a.jpg", xmp=packet)
    assert read_image(tmp_path / "a.jpg").shape == (3, 50, 37)
    assert read_image(tmp_path / "a.jpg", exif=False).shape == (3, 37, 50)


@pytest.mark.parametrize("suffix", ["webp", "gif", "bmp", "tif"])
def test_other_formats_equal_pillow(tmp_path, suffix):
    smooth_photo().save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        expected = np.asarray(stored.convert("RGB"))
    assert np.array_equal(as_array(read_image(tmp_path / f"a.{suffix}")), expected)


def test_damaged_headers_are_left_to_pillow(tmp_path):
    """Bytes of the header changed one by one: what Pillow reads must be read, and what it refuses refused."""
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOURS).save(path)
    whole = path.read_bytes()
    for position in range(2, 200, 3):
        data = bytearray(whole)
        data[position] ^= 0x5A
        path.write_bytes(data)
        try:
            with Image.open(path) as stored:
                expected = np.asarray(stored.convert("RGB"))
        except Exception:
            expected = None
        try:
            read = as_array(read_image(path))
        except AttnlabError:
            read = None
        assert (read is None) == (expected is None)
        if read is not None:
            assert np.abs(read.astype(int) - expected).max() <= 1


@pytest.mark.real_data
def test_real_photographs_are_as_pillow_reads_them(shared_data):
    paths = [*sorted((shared_data / "imagenet-sample").rglob("*.JPEG"))[::25]]
    paths += sorted((shared_data / "voc2007-images").iterdir())
    assert len(paths) > 40
    for path in paths:
        with Image.open(path) as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB")).astype(int)
        assert np.abs(as_array(read_image(path)) - expected).max() <= 1
