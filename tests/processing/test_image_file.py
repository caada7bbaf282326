"""Opening pictures: every mode becomes RGB, and no file, however bad, ends in anything but InputError."""

import contextlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.processing.image_file import load_image

GRADIENT = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
COLOURS = np.stack([GRADIENT, GRADIENT.T, 255 - GRADIENT], axis=2)


def encode(image: PIL.Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A picture that announces its size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_path_bytes_and_image_give_the_same(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(COLOURS)
    (tmp_path / "picture.png").write_bytes(encode(image))
    for source in (tmp_path / "picture.png", str(tmp_path / "picture.png"), encode(image), image):
        assert np.array_equal(np.array(load_image(source)), COLOURS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_common_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    image = PIL.Image.fromarray(COLOURS).convert("RGBA" if mode == "PA" else "RGB")
    converted = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    loaded = load_image(converted)
    assert loaded.mode == "RGB"
    assert np.array_equal(np.array(loaded), np.array(converted.convert("RGB")))


def test_transparency_is_dropped_not_blended() -> None:
    transparent_red = PIL.Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert load_image(encode(transparent_red)).getpixel((0, 0)) == (255, 0, 0)


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    palette = PIL.Image.fromarray(COLOURS).quantize(16)
    expected = np.array(palette.convert("RGB"))
    loaded = load_image(encode(palette, transparency=bytes([0, 128] + [255] * 14)))
    assert np.array_equal(np.array(loaded), expected)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_instead_of_clipped(file_format: str) -> None:
    content = encode(PIL.Image.fromarray(GRADIENT.astype(np.uint16) * 257), file_format)
    assert np.array_equal(np.array(load_image(content))[:, :, 0], GRADIENT)


@pytest.mark.parametrize("full_scale", [1.0, 255.0, 65535.0, 1e6])
def test_floats_are_scaled_by_what_their_range_suggests(full_scale: float) -> None:
    values = (GRADIENT / 255.0 * full_scale).astype(np.float32)
    loaded = np.array(load_image(encode(PIL.Image.fromarray(values), "TIFF")))
    assert np.abs(loaded[:, :, 0].astype(int) - GRADIENT).max() <= 1


def test_a_deep_picture_is_scaled_in_little_memory_and_the_same_in_every_strip() -> None:
    column = np.linspace(0, 65535, 3001).astype(np.uint16)
    deep = PIL.Image.fromarray(np.tile(column[:, None], (1, 1000)))
    tracemalloc.start()
    loaded = load_image(deep)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(np.array(loaded)[:, 500, 0], np.rint(column / 257))
    assert peak_bytes < 4 << 20  # the whole picture in double precision is 24 MB


def test_a_picture_of_nan_is_refused() -> None:
    values = np.full((4, 4), np.nan, dtype=np.float32)
    with pytest.raises(InputError, match="not finite"):
        load_image(PIL.Image.fromarray(values))


def test_a_photo_is_turned_upright() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    image = PIL.Image.new("RGB", (30, 20))
    assert load_image(encode(image, "JPEG", exif=exif)).size == (20, 30)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # our own limit comes before Pillow's error
@pytest.mark.parametrize(("width", "height"), [(9460, 9460), (12000, 12000), (50000, 50000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(InputError, match="pixels"):
        load_image(png_header(width, height))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_truncated_file_is_refused(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(PIL.Image.fromarray(noise), file_format)
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_image(content[: len(content) // 2])


def test_text_called_png_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "note.png"
    path.write_text("Hello, world!")
    for wrong in (path, tmp_path / "absent.png", tmp_path):
        with pytest.raises(InputError, match=wrong.name):
            load_image(wrong)
    with pytest.raises(InputError, match="the image is no picture"):
        load_image(b"")


def test_formats_that_start_other_programs_are_not_opened() -> None:
    with pytest.raises(InputError, match="is no picture in a known format"):  # not: no program was found for it
        load_image(encode(PIL.Image.fromarray(COLOURS), "EPS"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow reports odd metadata of TIFF files
@given(
    file_format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=300)
def test_damaged_files_load_or_are_refused(file_format: str, damage: list[tuple[float, int]]) -> None:
    content = bytearray(encode(PIL.Image.fromarray(COLOURS), file_format))
    for place, value in damage:
        content[int(place * len(content))] = value
    with contextlib.suppress(InputError):
        assert load_image(bytes(content)).mode == "RGB"


def test_a_float_picture_that_overshoots_a_little_is_not_black() -> None:
    values = (GRADIENT / 255).astype(np.float32)
    values[-1, -1] = 1.02
    loaded = np.array(load_image(PIL.Image.fromarray(values)))
    assert np.abs(loaded[:, :, 0].astype(int) - GRADIENT).max() <= 1


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="no pixels: it is 0 x 5"):
        load_image(PIL.Image.new("RGB", (0, 5)))
