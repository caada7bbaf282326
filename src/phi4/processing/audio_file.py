"""Opens sound files."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from phi4.errors import CapacityError, InputError
from phi4.processing.audio import RESAMPLING_QUALITY, check_sample_rate
from phi4.processing.mp3 import with_length

# Reading in blocks never trusts the length that a damaged header claims, and channels are averaged block by block:
# compressed silence would otherwise grow ten thousandfold in memory.
BLOCK_VALUES = 1 << 20

# The release's context of 131,072 tokens holds 2.9 hours at one token for each 80 ms.
MAX_SECONDS = 3 * 60 * 60

# What libsndfile says of FLAC files that went through a pipe.
UNKNOWN_FRAMES = 2**63 - 1

# libsndfile takes what there is of a file that ends early (WAV, AIFF, AU), and says so in its log only.
SHORTENED = re.compile(r"^ *(?:data|SSND|BODY|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that cannot know the length announce 2 GiB (sox: a little less) or 4.
STREAM_BYTES = 0x7F000000


def load_audio(source: str | Path | bytes, sample_rate_hz: int) -> np.ndarray:
    """Decodes a sound file of any format that libsndfile knows: WAV, FLAC, OGG, MP3 and others.

    Args:
        source: path of a file, or content of a file.
        sample_rate_hz: rate to resample to.

    Returns:
        fp32 in [-1, 1], [samples]: the channels' average at `sample_rate_hz`.

    Raises:
        InputError: there is no such file, or it is no sound or a damaged one, or its rate is not usable.
        CapacityError: it is longer than 3 hours.
    """
    name = str(source) if isinstance(source, str | Path) else "the audio"
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        counted = with_length(content)
        with _ForwardFile(io.BytesIO(counted)) as file:
            _check_complete(file, name)
            # What we counted ourselves is a bound and no promise: the first frame of MP3 may hold no sound.
            is_announced = file.frames != UNKNOWN_FRAMES and counted is content
            return _decode(file, name, sample_rate_hz, is_announced)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} cannot be read as sound: {error.error_string}") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{name} cannot be read as sound: {error.strerror}") from error
    except (OSError, TypeError, ValueError, MemoryError, soundfile.SoundFileError) as error:
        raise InputError(f"{name} cannot be read as sound: {error}") from error


def seconds_up_to(content: bytes, enough_s: float) -> float:
    """How long a sound says that it is; of MP3, how long its frames are.

    One that does not say is decoded until more than `enough_s` are there: it is at least as long as what is returned.

    Raises:
        SoundFileError, OSError, TypeError, ValueError or MemoryError: it is damaged, or no sound.
    """
    with _ForwardFile(io.BytesIO(with_length(content))) as file:
        num_samples = file.frames
        if num_samples == UNKNOWN_FRAMES:
            num_samples = _count(file, enough_s * file.samplerate)
        return num_samples / file.samplerate


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Is read from its beginning to its end.

    Behind every block soundfile seeks to where it is already, if it can: in MP3 of a variable bit rate libsndfile then
    goes on at another place, and in FLAC of unknown length it fails.
    """

    def seekable(self) -> bool:
        return False


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """The samples up to the end: fp32, [samples, channels] each."""
    while len(block := file.read(max(1, BLOCK_VALUES // file.channels), dtype="float32", always_2d=True)):
        yield block


def _count(file: soundfile.SoundFile, enough: float) -> int:
    """How many samples there are, of each channel; no block is read once more than `enough` were."""
    num_read = 0
    for block in _blocks(file):
        num_read += len(block)
        if num_read > enough:
            break
    return num_read


def _decode(file: soundfile.SoundFile, name: str, sample_rate_hz: int, is_announced: bool) -> np.ndarray:
    check_sample_rate(file.samplerate)
    if is_announced:
        _check_length(file.frames, file.samplerate, name)
    # At equal rates the resampler hands samples through unchanged.
    resampler = soxr.ResampleStream(file.samplerate, sample_rate_hz, 1, quality=RESAMPLING_QUALITY)
    num_read = 0
    blocks = []
    for block in _blocks(file):
        num_read += len(block)
        _check_length(num_read, file.samplerate, name)
        blocks.append(resampler.resample_chunk(block.mean(axis=1)))
    if is_announced and num_read < file.frames:
        raise InputError(f"{name} is cut short: it holds {num_read} of the {file.frames} samples that it announces")
    blocks.append(resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True))
    return np.concatenate(blocks)


def _check_complete(file: soundfile.SoundFile, name: str) -> None:
    """Refuses a file that ends before its header says, unless that is the length that pipes announce."""
    shortened = SHORTENED.search(file.extra_info)
    if shortened is None:
        return
    announced, there = int(shortened[1]), int(shortened[2])
    if there < announced < STREAM_BYTES:
        raise InputError(f"{name} is cut short: it holds {there} of the {announced} bytes of sound that it announces")


def _check_length(num_samples: int, sample_rate_hz: int, name: str) -> None:
    seconds = num_samples / sample_rate_hz
    if seconds > MAX_SECONDS:
        raise CapacityError(
            f"{name} lasts {seconds:.0f} s, and at most {MAX_SECONDS} s (3 hours) are decoded; cut it into pieces"
        )
