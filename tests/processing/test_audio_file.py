"""Opening sound files: common formats, and files that are refused."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.processing.audio_file import load_audio

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2)).astype(np.float32)


def encode(
    samples: np.ndarray, sample_rate_hz: int = 16000, file_format: str = "WAV", subtype: str | None = None
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format=file_format, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file_format", "subtype"), [("WAV", "FLOAT"), ("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", None)]
)
def test_lossless_formats_come_back(file_format: str, subtype: str | None) -> None:
    samples, sample_rate_hz = load_audio(encode(NOISE, 44100, file_format, subtype))
    assert sample_rate_hz == 44100
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, NOISE, atol=1e-4)


@pytest.mark.parametrize(("file_format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy_formats_keep_their_length(file_format: str, subtype: str | None) -> None:
    samples, sample_rate_hz = load_audio(encode(NOISE.repeat(12, axis=0), 48000, file_format, subtype))
    assert sample_rate_hz == 48000
    assert abs(len(samples) - 48000) < 3000


def test_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    content = encode(NOISE)
    (tmp_path / "sound.raw").write_bytes(content)  # the name does not matter
    for source in (tmp_path / "sound.raw", str(tmp_path / "sound.raw")):
        assert np.array_equal(load_audio(source)[0], load_audio(content)[0])


def test_six_channels_at_96_khz_are_read() -> None:
    samples, sample_rate_hz = load_audio(encode(np.zeros((9600, 6), np.float32), 96000))
    assert (samples.shape, sample_rate_hz) == ((9600, 6), 96000)


def test_an_empty_sound_file_is_read_as_no_samples() -> None:
    assert load_audio(encode(np.zeros((0, 1), np.float32)))[0].shape == (0, 1)


def test_text_called_wav_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "note.wav"
    path.write_text("Hello, world!")
    for wrong in (path, tmp_path / "absent.wav", tmp_path):
        with pytest.raises(InputError, match=f"{wrong.name}.* cannot be read as sound"):
            load_audio(wrong)
    with pytest.raises(InputError, match="the audio cannot be read"):
        load_audio(b"")
    with pytest.raises(InputError, match="the audio cannot be read"):
        load_audio(3)  # type: ignore[arg-type]


def test_a_file_that_is_cut_short_is_refused() -> None:
    content = encode(NOISE, file_format="FLAC")
    with pytest.raises(InputError, match=r"the audio (is cut short|cannot be read)"):
        load_audio(content[: len(content) // 2])


@given(
    file_format=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=200)
def test_damaged_files_load_or_are_refused(file_format: str, damage: list[tuple[float, int]]) -> None:
    content = bytearray(encode(NOISE, file_format=file_format))
    for place, value in damage:
        content[int(place * len(content))] = value
    with contextlib.suppress(InputError):
        samples, _ = load_audio(bytes(content))
        assert samples.ndim == 2
