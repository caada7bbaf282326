"""Log-mel features: the release's arithmetic, sounds of any rate and channel count, and sounds that are refused."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.processing.audio import audio_to_frames, log_mel, mel_filters, num_audio_tokens
from phi4.processing.settings import AudioSettings

RELEASED = AudioSettings()


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def tone(frequency_hz: float, sample_rate_hz: int, seconds: float) -> np.ndarray:
    times = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    return (0.3 * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def log_mel_step_by_step(samples: np.ndarray) -> np.ndarray:
    """Facts sheet 5.1, steps 3 to 7, one number after the other, in double precision."""

    def mel(frequency_hz: float) -> float:
        return float(1127 * np.log(1 + frequency_hz / 700))

    spacing = (mel(7690) - mel(0)) / 81
    frames = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = samples[start : start + 400].astype(np.float64)
        emphasised = [frame[0] - 0.97 * frame[0]] + [frame[n] - 0.97 * frame[n - 1] for n in range(1, 400)]
        spectrum = np.fft.rfft(np.array(emphasised) * 32768 * np.hamming(400), n=512)
        channels = []
        for channel in range(1, 81):
            total = 0.0
            for bin_index in range(1, 246):
                distance = abs(mel(bin_index * 16000 / 512) - channel * spacing) / spacing
                total += max(0.0, 1 - distance) * abs(spectrum[bin_index]) ** 2
            channels.append(np.log(max(total, 1.0)))
        frames.append(channels)
    return np.array(frames)


def test_features_agree_with_the_formulas_step_by_step() -> None:
    samples = noise(1000)
    np.testing.assert_allclose(log_mel(samples, RELEASED), log_mel_step_by_step(samples), atol=2e-5)


@given(num_samples=st.integers(400, 20000))
@settings(max_examples=30)
def test_frames_and_tokens_follow_from_the_number_of_samples(num_samples: int) -> None:
    audio = audio_to_frames(noise(num_samples), 16000, RELEASED)
    num_frames = (num_samples - 400) // 160 + 1
    assert audio.frames.shape == (num_frames, 80)
    assert num_audio_tokens(audio, RELEASED) == int(np.ceil(num_frames / 8))


@pytest.mark.parametrize(("seconds", "tokens"), [(30, 375), (40, 500), (60, 750)])
def test_one_token_stands_for_80_ms(seconds: int, tokens: int) -> None:
    audio = audio_to_frames(np.zeros(seconds * 16000, dtype=np.float32), 16000, RELEASED)
    assert num_audio_tokens(audio, RELEASED) == tokens


def test_silence_is_zero() -> None:
    assert not audio_to_frames(np.zeros(16000, dtype=np.float32), 16000, RELEASED).frames.any()


def test_a_frame_does_not_depend_on_the_block_that_computes_it() -> None:
    samples = noise(4200 * 160)
    whole = log_mel(samples, RELEASED)
    np.testing.assert_allclose(whole[4090:4110], log_mel(samples[4090 * 160 :], RELEASED)[:20], atol=1e-5)


def test_the_filters_use_bins_1_to_245() -> None:
    filters = mel_filters(RELEASED)
    assert filters.shape == (257, 80)
    assert np.flatnonzero(filters.any(axis=1)).tolist() == list(range(1, 246))
    assert (filters >= 0).all()
    assert filters.max() <= 1


@pytest.mark.parametrize("sample_rate_hz", [8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_every_rate_keeps_time_and_pitch(sample_rate_hz: int) -> None:
    expected = audio_to_frames(tone(1000, 16000, 1.0), 16000, RELEASED).frames
    frames = audio_to_frames(tone(1000, sample_rate_hz, 1.0), sample_rate_hz, RELEASED).frames
    assert abs(len(frames) - len(expected)) <= 1
    loudest = expected[50].argmax()
    assert frames[10:80].argmax(dim=1).eq(loudest).all()
    assert (frames[10:80, loudest] - expected[10:80, loudest]).abs().max() < 0.05


def test_channels_are_averaged() -> None:
    left, right = noise(16000, 1), noise(16000, 2)
    expected = audio_to_frames((left + right) / 2, 16000, RELEASED).frames
    assert (audio_to_frames(np.stack([left, right], axis=1), 16000, RELEASED).frames - expected).abs().max() < 1e-4


def test_integers_are_read_over_their_full_range() -> None:
    integers = (noise(16000) * 32768).astype(np.int16)
    expected = audio_to_frames((integers / 32768).astype(np.float32), 16000, RELEASED).frames
    assert audio_to_frames(integers, 16000, RELEASED).frames.equal(expected)


@pytest.mark.parametrize(
    ("samples", "sample_rate_hz", "complaint"),
    [
        (np.zeros(0, np.float32), 16000, "it holds no samples"),
        (np.zeros((100, 0), np.float32), 16000, "it holds no samples"),
        (np.zeros((2, 2, 2), np.float32), 16000, "\\[samples, channels\\]"),
        (np.zeros(1, np.float32), 16000, "give 1 at 16000 Hz, and one frame takes 400"),
        (np.zeros(399, np.float32), 16000, "399 samples"),
        (np.zeros((2, 48000), np.float32), 16000, "too short: 2 samples of 48000 channels"),
        (np.full(16000, np.nan, np.float32), 16000, "not finite"),
        (np.full(16000, np.inf, np.float32), 16000, "inf"),
        (np.full(16000, 1e30), 16000, "1e\\+30"),
        (noise(16000) * 32768, 16000, "\\[-1, 1\\] are needed"),
        (np.zeros(16000, np.uint8), 16000, "uint8"),
        (np.zeros(16000, np.complex64), 16000, "complex64"),
        (np.zeros(16000, np.float32), 0, "rate is 0 Hz"),
        (np.zeros(16000, np.float32), 10**9, "1000000000 Hz"),
    ],
)
def test_unusable_sounds_are_refused(samples: np.ndarray, sample_rate_hz: int, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        audio_to_frames(samples, sample_rate_hz, RELEASED)


@pytest.mark.parametrize("source", [(16000, noise(16000)), ([0.1] * 1000, 16000), (torch.zeros(1, 16000), 16000)])
def test_samples_that_are_no_array_are_refused(source: Any) -> None:
    with pytest.raises(InputError, match="a NumPy array is needed, and behind it the rate"):
        audio_to_frames(*source, RELEASED)
