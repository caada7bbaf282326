"""Opens pictures of any common format and brings them to 8-bit RGB."""

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from phi4.errors import InputError
from phi4.processing.messages import ImageSource

# EPS and other formats are left out because Pillow starts programs to read them.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA")

# The size in pixels above which Pillow itself suspects a decompression bomb; 36 crops hold 7.2 million.
MAX_PIXELS = 89_478_485

# What values may stand for full brightness in modes of more than 8 bits; the smallest that covers half of the picture's
# largest value does.
FULL_SCALES: dict[str, tuple[float, ...]] = {
    "I;16": (65535.0,),
    "I;16L": (65535.0,),
    "I;16B": (65535.0,),
    "I;16N": (65535.0,),
    "I": (65535.0, 2.0**31 - 1),
    "F": (1.0, 255.0, 65535.0),
}

# Float pictures overshoot full brightness where they were sharpened or scaled; at double, 255 would look black anyway.
MAX_OVERSHOOT = 2.0

# Rows that are scaled to 8 bits at once.
STRIP_ROWS = 64

# What Pillow's decoders raise on damaged files; OSError covers truncation and files that are no picture.
DECODING_ERRORS = (
    OSError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
)


def load_image(source: ImageSource) -> PIL.Image.Image:
    """Opens a picture, turns it upright as its EXIF data says, and converts it to RGB.

    As in the release transparency is dropped, not blended (facts sheet 4.3, step 1). Pictures of 16 or 32 bits a
    channel are scaled to 8 bits, where the release would clip them. Of an animation the first frame is taken.

    Args:
        source: path of a file, content of a file, or a Pillow image.

    Raises:
        InputError: there is no such file, it is no picture or a damaged one, or it has too many pixels.
    """
    try:
        if isinstance(source, PIL.Image.Image):
            return _to_upright_rgb(source)
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _to_upright_rgb(image)
    except PIL.UnidentifiedImageError as error:
        raise InputError(f"{_describe(source)} is no picture in a known format ({', '.join(FORMATS)})") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{_describe(source)} cannot be read as a picture: {error.strerror}") from error
    except DECODING_ERRORS as error:
        raise InputError(f"{_describe(source)} cannot be read as a picture: {error}") from error


def _to_upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if not image.width or not image.height:
        raise InputError(f"the picture has no pixels: it is {image.width} x {image.height}")
    # The header alone tells the size: nothing has been decoded yet.
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"the picture has {image.width} x {image.height} = {image.width * image.height:,} pixels; "
            f"at most {MAX_PIXELS:,} are decoded: scale it down"
        )
    image.load()
    upright = PIL.ImageOps.exif_transpose(image)
    if upright.mode in FULL_SCALES:
        upright = _scale_to_8_bits(upright, FULL_SCALES[upright.mode])
    elif upright.mode == "P":
        # Straight to RGB, Pillow warns about palettes with transparency; through RGBA the colours are the same.
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def _scale_to_8_bits(image: PIL.Image.Image, full_scales: tuple[float, ...]) -> PIL.Image.Image:
    """Scales strip by strip: a whole picture in double precision takes eight times the memory of the result."""
    boxes = [(0, top, image.width, min(top + STRIP_ROWS, image.height)) for top in range(0, image.height, STRIP_ROWS)]
    # A strip with NaN has NaN for its largest value.
    largest = float(np.max([np.asarray(image.crop(box)).max() for box in boxes]))
    smallest = float(np.min([np.asarray(image.crop(box)).min() for box in boxes]))
    if not math.isfinite(largest) or not math.isfinite(smallest):
        raise InputError("the picture holds values that are not finite")
    full_scale = next((scale for scale in full_scales if largest <= MAX_OVERSHOOT * scale), largest)
    scaled = PIL.Image.new("L", image.size)
    for box in boxes:
        values = np.asarray(image.crop(box), dtype=np.float64)
        strip = np.rint(values.clip(0.0, full_scale) * (255.0 / full_scale)).astype(np.uint8)
        scaled.paste(PIL.Image.fromarray(strip), box)
    return scaled


def _describe(source: ImageSource) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"
