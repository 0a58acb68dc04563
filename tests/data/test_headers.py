"""What is too large or damaged is found before it is decoded, in any format."""

from __future__ import annotations

import io
import os
import resource
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch.utils.data import DataLoader

from attnlab.data.checks import find_bad_files
from attnlab.data.headers import MAX_PIXELS, opened, size_in, stated_size
from attnlab.data.images import read_image, read_mask
from attnlab.data.segmentation.coded_masks import CodedMaskReader
from attnlab.data.segmentation.mask_values import look_at_pairs
from attnlab.data.segmentation.sets import ImageAndMask, IndexMaskReader
from attnlab.data.sets import PredictSet
from attnlab.errors import AttnlabError

SIDE = 65500
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
INDICES = np.random.default_rng(0).integers(0, 3, (40, 50)).astype(np.uint8)


def encoded(suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    changed = bytearray(data)
    for position, new in changes:
        changed[position : position + len(new)] = new
    return bytes(changed)


def large_jpeg(**options: object) -> bytes:
    data = encoded("jpg", **options)
    frame = next(
        data.index(bytes([0xFF, marker])) for marker in (0xC0, 0xC2) if bytes([0xFF, marker]) in data
    )
    return patched(data, (frame + 5, struct.pack(">HH", SIDE, SIDE)))


def large_png() -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + encoded("png")[8 + len(header) :]


def large_tiff() -> bytes:
    picture, buffer = Image.fromarray(PIXELS), io.BytesIO()
    picture.save(buffer, "TIFF")
    data = buffer.getvalue()
    tags = int.from_bytes(data[4:8], "little")
    changes = []
    for entry in range(int.from_bytes(data[tags : tags + 2], "little")):
        place = tags + 2 + 12 * entry
        if int.from_bytes(data[place : place + 2], "little") in (256, 257):
            changes.append((place + 2, struct.pack("<HII", 4, 1, SIDE)))
    return patched(data, *changes)


def large_webp(**options: object) -> bytes:
    data, most = encoded("webp", **options), 16383
    if data[12:16] == b"VP8 ":
        return patched(data, (26, struct.pack("<HH", most, most)))
    bits = int.from_bytes(data[21:25], "little") & ~0xFFFFFFF
    return patched(data, (21, (bits | (most - 1) << 14 | most - 1).to_bytes(4, "little")))


BOMBS: dict[str, Callable[[], bytes]] = {
    "jpg": large_jpeg,
    "progressive.jpg": lambda: large_jpeg(progressive=True),
    "late.jpg": lambda: large_jpeg(icc_profile=bytes(70_000)),
    "turned.jpg": lambda: large_jpeg(
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "png": large_png,
    "gif": lambda: patched(encoded("gif"), (6, struct.pack("<HH", SIDE, SIDE))),
    "bmp": lambda: patched(encoded("bmp"), (18, struct.pack("<ii", SIDE, SIDE))),
    "ppm": lambda: f"P6 {SIDE} {SIDE} 255\n".encode() + bytes(1000),
    "tif": large_tiff,
    "lossy.webp": large_webp,
    "lossless.webp": lambda: large_webp(lossless=True),
}


@pytest.fixture(params=BOMBS)
def bomb(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"large.{request.param}"
    path.write_bytes(BOMBS[request.param]())
    return path


class TestSize:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "ppm", "tif"])
    def test_it_is_the_one_of_the_pixels(self, tmp_path, suffix):
        kinds = ({}, {"lossless": True}, {"progressive": True}, {"exif": Image.Exif()})
        for options in ({}, {"icc_profile": bytes(70_000)}) if suffix in ("tif", "ppm") else kinds:
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(encoded(suffix, **options))
            assert stated_size(path, MAX_PIXELS) == (20, 30)
            with path.open("rb") as file, opened(file, path, "image", MAX_PIXELS) as picture:
                assert picture.size == (30, 20)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    @pytest.mark.parametrize("options", [{}, {"lossless": True}, {"save_all": True}])
    def test_of_a_webp_without_pillow(self, mode, options):
        buffer = io.BytesIO()
        picture = Image.fromarray(PIXELS).convert(mode)
        more = [picture.rotate(180)] if options.get("save_all") else []
        picture.save(buffer, "WEBP", append_images=more, **options)
        assert size_in(buffer.getvalue()) == (20, 30)

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
    def test_of_a_header_that_is_cut_short(self, suffix):
        data = encoded(suffix)
        assert size_in(data[:600] if suffix == "jpg" else data[:30]) in ((20, 30), None)
        for length in range(24):
            assert size_in(data[:length]) is None


class TestLimit:
    def test_a_claim_is_refused_in_every_format(self, bomb):
        for call in (read_image, stated_size):
            with pytest.raises(AttnlabError) as caught:
                call(bomb, max_pixels=MAX_PIXELS)
            text = str(caught.value)
            assert f"'{bomb}'" in text
            assert f"more than the limit of {MAX_PIXELS}" in text
            assert "--data.max_pixels" in text
        if bomb.suffix != ".webp":
            assert "65500 x 65500 = 4290250000 pixels" in text
        for depth in ("quick", "full"):
            assert list(find_bad_files([bomb], depth)) == [0]

    def test_so_is_a_mask(self, bomb):
        for reader in (read_mask, IndexMaskReader(), CodedMaskReader("index", ((0, 0),))):
            with pytest.raises(AttnlabError, match=r"The mask '.*more than the limit"):
                reader(bomb)

    def test_nothing_is_made_room_for(self, tmp_path):
        """In a process that may take 200 MB more; what the limit did not stop would need gigabytes."""
        for name, make in BOMBS.items():
            (tmp_path / f"large.{name}").write_bytes(make())
        if (child := os.fork()) == 0:
            status = 1
            try:
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                most = pages * resource.getpagesize() + 200_000_000
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
                found = find_bad_files(sorted(tmp_path.iterdir()), "quick")
                status = 0 if all("more than the limit" in text for text in found.values()) else 2
                status = status if len(found) == len(BOMBS) else 3
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
    def test_a_compressed_chunk_is_not_made_room_for_either(self, tmp_path, kind):
        packer = zlib.compressobj()
        packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
        data = encoded("png")
        path = tmp_path / "a.png"
        path.write_bytes(data[:33] + chunk(kind, b"name\0\0" + packed) + data[33:])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(AttnlabError, match=r"Cannot read the image .*a\.png"):
            read_image(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000

    def test_it_is_the_last_pixel_that_counts(self, tmp_path):
        for suffix in ("jpg", "png", "bmp", "gif"):
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(encoded(suffix))
            assert read_image(path, max_pixels=600).shape == (3, 20, 30)
            with pytest.raises(AttnlabError, match="30 x 20 = 600 pixels, more than the limit of 599"):
                read_image(path, max_pixels=599)

    def test_what_was_found_whole_is_measured_again(self, tmp_path):
        path, mask = tmp_path / "a.png", tmp_path / "m.png"
        path.write_bytes(encoded("png"))
        Image.fromarray(INDICES[:20, :30]).save(mask)
        for file in (path, mask):
            os.utime(file, (1, 1))
        pair, reader = [ImageAndMask("a", path, mask)], IndexMaskReader()
        assert find_bad_files([path], "full", root=tmp_path) == {}
        assert look_at_pairs(pair, 3, 255, reader, tmp_path)[0].problem is None
        assert "the limit of 599" in find_bad_files([path], "full", root=tmp_path, max_pixels=599)[0]
        assert "the limit of 599" in str(look_at_pairs(pair, 3, 255, reader, tmp_path, 599)[0].problem)

    @pytest.mark.parametrize("pillows", [10, None, 10**12])
    def test_pillows_own_neither_matters_nor_changes(self, tmp_path, monkeypatch, pillows):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        path = tmp_path / "a.tif"
        path.write_bytes(encoded("tif"))
        assert read_image(path).shape == (3, 20, 30)
        with pytest.raises(AttnlabError, match="the limit of 599"):
            read_image(path, max_pixels=599)
        paths = [path] * 50
        assert find_bad_files(paths, "full") == {}
        assert pillows == Image.MAX_IMAGE_PIXELS

    @pytest.mark.parametrize(
        "context",
        [
            "fork",
            pytest.param("spawn", marks=pytest.mark.slow),
            pytest.param("forkserver", marks=pytest.mark.nightly),
        ],
    )
    def test_it_reaches_workers(self, tmp_path, context):
        path = tmp_path / "a.png"
        path.write_bytes(encoded("png"))
        for limit in (600, 599):
            loader: DataLoader[object] = DataLoader(
                PredictSet([path], max_pixels=limit), num_workers=1, multiprocessing_context=context
            )
            if limit == 600:
                assert len(list(loader)) == 1
            else:
                with pytest.raises(AttnlabError, match="the limit of 599"):
                    list(loader)


class TestChecksums:
    @pytest.mark.parametrize("mode", ["P", "L", "1"])
    def test_no_flipped_bit_gives_another_mask(self, tmp_path, mode):
        """Decoders skip the checksums of the pixels; a flip there gave another legal mask, in 1 of 100."""
        picture = Image.fromarray(INDICES % 2 * 255 if mode == "1" else INDICES)
        if mode == "P":
            picture.putpalette(bytes(range(256)) * 3)
        path = tmp_path / "m.png"
        picture.convert(mode).save(path)
        whole, right = path.read_bytes(), read_mask(path)
        rng, seen = np.random.default_rng(0), Counter[str]()
        readers = (read_mask, CodedMaskReader("index", tuple((k, k) for k in range(256))))
        for bit in rng.choice(8 * len(whole), 700, replace=False).tolist():
            path.write_bytes(patched(whole, (bit // 8, bytes([whole[bit // 8] ^ 1 << bit % 8]))))
            for reader in readers:
                try:
                    read = reader(path)
                except AttnlabError:
                    seen["refused"] += 1
                else:
                    seen["same"] += 1
                    assert torch.equal(read, right)
        assert seen["refused"] > 1300

    def test_nor_another_image(self, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(encoded("png"))
        whole, right = path.read_bytes(), read_image(path)
        for bit in np.random.default_rng(1).choice(8 * len(whole), 300, replace=False).tolist():
            path.write_bytes(patched(whole, (bit // 8, bytes([whole[bit // 8] ^ 1 << bit % 8]))))
            try:
                assert torch.equal(read_image(path), right)
            except AttnlabError:
                continue

    def test_the_chunk_is_named_and_what_follows_the_end_does_not_matter(self, tmp_path):
        more = PngImagePlugin.PngInfo()
        more.add_text("by", "hand")
        path = tmp_path / "a.png"
        path.write_bytes(encoded("png", pnginfo=more) + b"trailing words")
        whole, right = path.read_bytes(), read_image(path)
        assert right.shape == (3, 20, 30)
        place = whole.index(b"IDAT") + 30
        path.write_bytes(patched(whole, (place, bytes([whole[place] ^ 1]))))
        with pytest.raises(
            AttnlabError, match=r"image '.*a\.png' is damaged: the checksum of its IDAT chunk"
        ):
            read_image(path)
        path.write_bytes(whole[: whole.index(b"IEND")])
        with pytest.raises(AttnlabError, match=r"a\.png' is truncated\. Get the file again"):
            read_image(path)
