"""Sounds to frames: mixed to one channel, resampled, then the released log-mel features (facts sheet 5.1)."""

import numpy as np
import soxr
import torch

from phi4.errors import InputError
from phi4.inputs import AudioFrames
from phi4.processing.settings import AudioSettings

# Rates outside this range are mistakes; resampling from a few Hz would also take unbounded memory.
MIN_SAMPLE_RATE_HZ = 4_000
MAX_SAMPLE_RATE_HZ = 768_000

# The best that soxr offers.
RESAMPLING_QUALITY = "VHQ"

# Float files overshoot 1 a little; far beyond it, they hold integers that nobody scaled, or noise.
MAX_AMPLITUDE = 128.0

# Frames that are transformed at once, to bound memory on long sounds.
BLOCK_FRAMES = 4096


def audio_to_frames(samples: np.ndarray, sample_rate_hz: int, settings: AudioSettings) -> AudioFrames:
    """Turns a sound into log-mel frames.

    Every rate is resampled to 16 kHz first. The release mistimes most others and treats 8 kHz on its own (facts sheet
    5.1, steps 2 and 8); at 16 kHz the numbers are the release's.

    Args:
        samples: [samples] or [samples, channels]; floats in [-1, 1], or signed integers over their full range.
        sample_rate_hz: of the samples.
        settings: sizes of the features.

    Raises:
        InputError: the sound is empty, too short for one frame, not finite, or its rate or shape is not usable.
    """
    mono = _resample(_mix_to_mono(samples), sample_rate_hz, settings)
    if len(mono) < settings.window_samples:
        raise InputError(
            f"the sound is too short: {len(samples)} samples of {samples[:1].size} channels at {sample_rate_hz} Hz "
            f"give {len(mono)} at {settings.sample_rate_hz} Hz, and one frame takes {settings.window_samples}"
        )
    return AudioFrames(frames=torch.from_numpy(log_mel(mono, settings)))


def check_sample_rate(sample_rate_hz: int) -> None:
    """Refuses rates that no recording has.

    Raises:
        InputError: the rate is out of range.
    """
    if not MIN_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise InputError(
            f"the sound's sample rate is {sample_rate_hz} Hz; "
            f"{MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz can be used"
        )


def num_audio_tokens(audio: AudioFrames, settings: AudioSettings) -> int:
    """Counts the placeholder tokens of a sound: one for each 8 frames, rounded up (facts sheet 5.1, step 10)."""
    return -(-len(audio.frames) // settings.frames_per_token)


def log_mel(samples: np.ndarray, settings: AudioSettings) -> np.ndarray:
    """Computes the released features (facts sheet 5.1, steps 3 to 7): no centring, no padding, the tail is dropped.

    Args:
        samples: fp32, [samples], at `settings.sample_rate_hz`; at least one window of them.
        settings: sizes of the features.

    Returns:
        fp32, [frames, mels].
    """
    filters = mel_filters(settings)
    window = np.hamming(settings.window_samples)
    windows = np.lib.stride_tricks.sliding_window_view(samples, settings.window_samples)[:: settings.hop_samples]
    blocks = []
    for start in range(0, len(windows), BLOCK_FRAMES):
        frames = windows[start : start + BLOCK_FRAMES]  # [frames, window]
        # Pre-emphasis works inside each frame, whose first sample serves as its own predecessor.
        previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        emphasised = (frames - np.float32(settings.preemphasis) * previous) * np.float32(settings.sample_scale)
        spectrum = np.fft.rfft(window * emphasised, n=settings.fft_size, axis=1).astype(np.complex64)
        power = np.square(np.abs(spectrum))  # [frames, bins]
        blocks.append(np.log(np.maximum(power @ filters, np.float32(1.0))))
    return np.concatenate(blocks)


def mel_filters(settings: AudioSettings) -> np.ndarray:
    """Builds the triangles that gather frequency bins into mel channels (facts sheet 5.1, step 6).

    Returns:
        fp32, [bins, mels]; each triangle rises and falls linearly in mel and is not normalised by its area.
    """
    bin_hz = np.arange(settings.fft_size // 2 + 1) * (settings.sample_rate_hz / settings.fft_size)
    low_mel, high_mel = _hz_to_mel(np.array([settings.mel_low_hz, settings.mel_high_hz]))
    spacing = (high_mel - low_mel) / (settings.num_mels + 1)
    centres = low_mel + spacing * np.arange(1, settings.num_mels + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(centres - _hz_to_mel(bin_hz)[:, None]) / spacing)
    # The release leaves out the bins at both ends: 1 to 245 of 257 count.
    bins_per_hz = settings.fft_size / settings.sample_rate_hz
    weights[: int(settings.mel_low_hz * bins_per_hz + 0.5) + 1] = 0.0
    weights[int(settings.mel_high_hz * bins_per_hz + 0.5) :] = 0.0
    return weights.astype(np.float32)


def _hz_to_mel(frequency_hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + frequency_hz / 700.0)


def _mix_to_mono(samples: np.ndarray) -> np.ndarray:
    """Brings samples to fp32 in [-1, 1] and averages the channels."""
    if not isinstance(samples, np.ndarray):
        raise InputError(
            f"the sound's samples are a {type(samples).__name__}; a NumPy array is needed, and behind it the rate in Hz"
        )
    if samples.ndim not in (1, 2):
        raise InputError(f"the sound is an array of shape {list(samples.shape)}, not [samples] or [samples, channels]")
    if samples.size == 0:
        raise InputError("the sound is empty: it holds no samples")
    if np.issubdtype(samples.dtype, np.signedinteger):
        scaled = samples / -float(np.iinfo(samples.dtype).min)
    elif np.issubdtype(samples.dtype, np.floating):
        scaled = samples
    else:
        raise InputError(f"the sound's samples are {samples.dtype}; floats or signed integers are needed")
    peak = float(np.maximum(scaled.max(), -scaled.min()))
    if not np.isfinite(peak):
        raise InputError("the sound holds samples that are not finite (NaN or infinity)")
    if peak > MAX_AMPLITUDE:
        raise InputError(f"the sound's samples reach {peak:g}; floats in [-1, 1] are needed")
    mono = scaled if scaled.ndim == 1 else scaled.mean(axis=1)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _resample(samples: np.ndarray, sample_rate_hz: int, settings: AudioSettings) -> np.ndarray:
    check_sample_rate(sample_rate_hz)
    if sample_rate_hz == settings.sample_rate_hz:
        return samples
    resampled: np.ndarray = soxr.resample(samples, sample_rate_hz, settings.sample_rate_hz, RESAMPLING_QUALITY)
    return resampled
