"""Opens sound files."""

import io
from pathlib import Path

import numpy as np
import soundfile

from phi4.errors import InputError

# Reading in blocks never trusts the length that a damaged header claims.
BLOCK_SAMPLES = 1 << 20


def load_audio(source: str | Path | bytes) -> tuple[np.ndarray, int]:
    """Decodes a sound file of any format that libsndfile knows: WAV, FLAC, OGG, MP3 and others.

    Args:
        source: path of a file, or content of a file.

    Returns:
        samples: fp32 in [-1, 1], [samples, channels].
        sample_rate_hz: of the file.

    Raises:
        InputError: there is no such file, or it is no sound or a damaged one.
    """
    name = str(source) if isinstance(source, str | Path) else "the audio"
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            blocks = [np.empty((0, file.channels), dtype=np.float32)]
            while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                blocks.append(block)
            samples, sample_rate_hz, promised = np.concatenate(blocks), file.samplerate, file.frames
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} cannot be read as sound: {error.error_string}") from error
    except (OSError, TypeError, ValueError, MemoryError, soundfile.SoundFileError) as error:
        raise InputError(f"{name} cannot be read as sound: {error}") from error
    if len(samples) < promised:
        raise InputError(f"{name} is cut short: it holds {len(samples)} of the {promised} samples that it announces")
    return samples, sample_rate_hz
