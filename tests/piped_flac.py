"""FLAC files as programs write them that cannot go back to the header: without a length."""

import io

import numpy as np
import soundfile


def piped_flac(samples: np.ndarray, sample_rate_hz: int = 16000) -> bytes:
    """Content of a file with these samples, [samples] or [samples, channels]."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate_hz, format="FLAC")
    content = bytearray(file.getvalue())
    content[21] &= 0xF0  # the number of samples: 36 bits, 0 if unknown
    content[22:26] = bytes(4)
    return bytes(content)
