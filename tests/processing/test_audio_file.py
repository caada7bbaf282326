"""Opening sound files: common formats, and files that are refused."""

import contextlib
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import CapacityError, InputError
from phi4.processing.audio import audio_to_frames
from phi4.processing.audio_file import load_audio, seconds_up_to
from phi4.processing.mp3 import frame_bytes, with_length
from phi4.processing.settings import AudioSettings
from piped_flac import piped_flac

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
    samples = load_audio(encode(NOISE, 44100, file_format, subtype), 44100)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, NOISE.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize(("file_format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy_formats_keep_their_length(file_format: str, subtype: str | None) -> None:
    samples = load_audio(encode(NOISE.repeat(12, axis=0), 48000, file_format, subtype), 16000)
    assert abs(len(samples) - 16000) < 1000


def test_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    content = encode(NOISE)
    (tmp_path / "sound.raw").write_bytes(content)  # the name does not matter
    for source in (tmp_path / "sound.raw", str(tmp_path / "sound.raw")):
        assert np.array_equal(load_audio(source, 16000), load_audio(content, 16000))


def test_six_channels_at_96_khz_are_read() -> None:
    assert load_audio(encode(np.zeros((9600, 6), np.float32), 96000), 16000).shape == (1600,)


@pytest.mark.parametrize("sample_rate_hz", [8000, 11025, 44100, 192000])
def test_resampling_block_by_block_equals_resampling_at_once(
    sample_rate_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.processing.audio_file.BLOCK_VALUES", 1000)
    samples = load_audio(encode(NOISE, sample_rate_hz, subtype="FLOAT"), 16000)
    at_once = soxr.resample(NOISE.mean(axis=1), sample_rate_hz, 16000, "VHQ")
    np.testing.assert_allclose(samples, at_once, atol=1e-6)


def test_silence_of_many_channels_takes_the_memory_of_one_at_16_khz() -> None:
    content = encode(np.zeros((2_000_000, 8), np.int16), 48000, "FLAC")
    tracemalloc.start()
    samples = load_audio(content, 16000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert samples.shape == (666_667,)
    assert peak_bytes < 20 << 20  # all channels at 48 kHz are 64 MB


def test_a_sound_longer_than_any_context_is_refused_by_its_header() -> None:
    content = encode(np.zeros(4000 * 3600 * 3 + 4000, np.int16), 4000, "FLAC")
    with pytest.raises(CapacityError, match="the audio lasts 10801 s, and at most 10800 s"):
        load_audio(content, 16000)


def test_values_that_are_no_numbers_survive_for_the_check_of_the_samples() -> None:
    broken = NOISE.copy()
    broken[100, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        audio_to_frames(load_audio(encode(broken, 44100, subtype="FLOAT"), 16000), 16000, AudioSettings())


def test_a_rate_that_no_recording_has_is_refused() -> None:
    with pytest.raises(InputError, match="sample rate is 1 Hz"):
        load_audio(encode(NOISE, 1), 16000)


def test_an_empty_sound_file_is_read_as_no_samples() -> None:
    assert load_audio(encode(np.zeros((0, 1), np.float32)), 16000).shape == (0,)


def test_text_called_wav_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "note.wav"
    path.write_text("Hello, world!")
    for wrong in (path, tmp_path / "absent.wav", tmp_path):
        with pytest.raises(InputError, match=f"{wrong.name}.* cannot be read as sound"):
            load_audio(wrong, 16000)
    with pytest.raises(InputError, match="the audio cannot be read"):
        load_audio(b"", 16000)
    with pytest.raises(InputError, match="the audio cannot be read"):
        load_audio(3, 16000)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_file_that_announces_no_length_is_read_to_its_end(mode: str, loud_first: bool) -> None:
    parts = [np.random.default_rng(0).uniform(-0.5, 0.5, 88200).astype(np.float32), np.zeros(88200, np.float32)]
    samples = np.concatenate(parts if loud_first else parts[::-1])
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 44100, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content = buffer.getvalue()
    assert with_length(content) is content
    without = content[frame_bytes(content[:4]) :]  # the first frame is the one with the length
    assert abs(len(load_audio(without, 44100)) - len(samples)) < 4000
    assert seconds_up_to(without, 1.0) == pytest.approx(4.0, abs=0.1)


def test_an_mp3_file_of_variable_bit_rate_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000)
    samples = np.concatenate([noise, 0.2 * np.sin(np.arange(32000) * 0.05)]).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    whole = load_audio(buffer.getvalue(), 16000)
    monkeypatch.setattr("phi4.processing.audio_file.BLOCK_VALUES", 20000)
    np.testing.assert_allclose(load_audio(buffer.getvalue(), 16000), whole, atol=1e-6)


@pytest.mark.parametrize("file_format", ["WAV", "WAVEX", "AIFF", "AU"])
def test_a_sound_that_ends_before_its_header_says_is_refused(file_format: str) -> None:
    with pytest.raises(InputError, match="cut short: it holds"):
        load_audio(encode(NOISE, file_format=file_format)[:-3000], 16000)


@pytest.mark.parametrize("announced", [0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_file_from_a_pipe_is_read(announced: int) -> None:
    content = bytearray(encode(NOISE))
    place = content.find(b"data") + 4
    content[place : place + 4] = struct.pack("<I", announced)
    assert len(load_audio(bytes(content), 16000)) == 4000


def test_a_flac_file_from_a_pipe_is_read() -> None:
    np.testing.assert_allclose(load_audio(piped_flac(NOISE), 16000), NOISE.mean(axis=1), atol=1e-4)


def test_a_flac_file_from_a_pipe_is_measured_no_further_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi4.processing.audio_file.BLOCK_VALUES", 1000)
    assert seconds_up_to(piped_flac(NOISE), 1.0) == 4000 / 16000
    assert seconds_up_to(piped_flac(NOISE), 0.1) == 2000 / 16000  # the fourth block of 500 passes 1600 samples


def test_a_file_that_is_cut_short_is_refused() -> None:
    content = encode(NOISE, file_format="FLAC")
    with pytest.raises(InputError, match=r"the audio (is cut short|cannot be read)"):
        load_audio(content[: len(content) // 2], 16000)


@given(
    file_format=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=200)
def test_damaged_files_load_or_are_refused(file_format: str, damage: list[tuple[float, int]]) -> None:
    content = bytearray(encode(NOISE, file_format=file_format))
    for place, value in damage:
        content[int(place * len(content))] = value
    with contextlib.suppress(InputError, CapacityError):
        assert load_audio(bytes(content), 16000).ndim == 1
