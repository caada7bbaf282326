"""Pictures and sounds in requests: where their bytes come from, and how large they may be."""

import base64
import binascii
import io
from urllib.parse import unquote_to_bytes

import PIL.Image
import soundfile

from phi4.errors import CapacityError, InputError
from phi4.processing.audio_file import seconds_up_to
from phi4.processing.image_file import DECODING_ERRORS, FORMATS
from phi4.processing.messages import Image, Sound
from phi4.server.fetch import fetch
from phi4.server.limits import ServerLimits


def read_picture(url: str, limits: ServerLimits) -> Image:
    """Reads the picture behind an address.

    Raises:
        InputError: the address is not usable, or what is there is too large to be fetched.
        CapacityError: the picture has too many pixels.
    """
    content = read_address(url, limits)
    check_picture(content, limits)
    return Image(content)


def read_sound(content: bytes, limits: ServerLimits) -> Sound:
    """Takes the content of a sound file.

    Raises:
        CapacityError: it is too long.
    """
    check_sound(content, limits)
    return Sound(content)


def read_address(url: str, limits: ServerLimits) -> bytes:
    """Reads a data URI, or an http address where that is allowed. Files of the server's machine are never read.

    Raises:
        InputError: the address is not usable, or not allowed.
    """
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "data":
        return _decode_data_uri(rest)
    if scheme.lower() not in ("http", "https"):
        raise InputError("a medium's address must be a data URI, or begin with http:// or https://")
    if not limits.allow_remote_media:
        raise InputError(
            "this server fetches no media; send the medium as a data URI (data:image/png;base64,...), "
            "or start the server with --allow-remote-media"
        )
    return fetch(url, limits.max_remote_bytes, limits.remote_timeout_s)


def decode_base64(text: str) -> bytes:
    """Decodes base64, line breaks allowed.

    Raises:
        InputError: it is something else.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"a medium is not valid base64: {error}") from error


def check_picture(content: bytes, limits: ServerLimits) -> None:
    """Refuses a picture that is too large, by its header alone. A damaged one is refused when it is decoded.

    Raises:
        CapacityError: it has too many pixels.
    """
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise CapacityError(f"a picture is too large: {error}") from error
    except DECODING_ERRORS:
        return
    if width * height > limits.max_image_pixels:
        raise CapacityError(
            f"a picture has {width} x {height} = {width * height:,} pixels; this server takes at most "
            f"{limits.max_image_pixels:,.0f}: scale it down"
        )


def check_sound(content: bytes, limits: ServerLimits) -> None:
    """Refuses a sound that is too long, without keeping what it holds. A damaged one is refused when it is decoded.

    Raises:
        CapacityError: it is too long.
    """
    try:
        seconds = seconds_up_to(content, limits.max_audio_s)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError):
        return
    if seconds > limits.max_audio_s:
        raise CapacityError(
            f"a sound lasts at least {seconds:.0f} s; this server takes at most {limits.max_audio_s:g} s: "
            "cut it into pieces"
        )


def _decode_data_uri(rest: str) -> bytes:
    header, comma, data = rest.partition(",")
    if not comma:
        raise InputError("a data URI has no comma; it looks like data:image/png;base64,...")
    if header.lower().endswith(";base64"):
        return decode_base64(unquote_to_bytes(data).decode("latin-1"))
    return unquote_to_bytes(data)
