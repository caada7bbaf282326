"""Sizes that pictures and sounds are prepared with, read from the checkpoint's preprocessor configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi4.config import SpeechConfig, VisionConfig
from phi4.errors import ConfigError


@dataclass(frozen=True)
class ImageSettings:
    """Sizes of the dynamic HD transform. Defaults are the release's (facts sheet 4.3)."""

    crop_size_px: int = 448
    patch_size_px: int = 14
    max_crops: int = 36

    def __post_init__(self) -> None:
        if self.max_crops < 1:
            raise ConfigError(f"dynamic_hd, the largest number of crops, is {self.max_crops}: at least 1 is needed")

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a crop."""
        return self.crop_size_px // self.patch_size_px


@dataclass(frozen=True)
class AudioSettings:
    """Sizes of the log-mel features. Defaults are the release's (facts sheet 5.1).

    Attributes:
        sample_rate_hz: rate that every sound is resampled to first.
        window_samples: samples in one frame.
        hop_samples: samples from the start of one frame to the start of the next.
        fft_size: length of the transform; a frame is padded with zeros up to it.
        num_mels: mel channels.
        mel_low_hz: where the lowest triangle begins.
        mel_high_hz: where the highest triangle ends.
        preemphasis: share of the previous sample that is taken off each sample.
        sample_scale: factor that brings samples in [-1, 1] to the range of 16-bit integers.
        frames_per_token: frames that become one placeholder token; a part counts as a whole.
    """

    sample_rate_hz: int = 16000
    window_samples: int = 400
    hop_samples: int = 160
    fft_size: int = 512
    num_mels: int = 80
    mel_low_hz: float = 0.0
    mel_high_hz: float = 7690.0
    preemphasis: float = 0.97
    sample_scale: float = 32768.0
    frames_per_token: int = 8

    def __post_init__(self) -> None:
        if self.hop_samples < 1 or not 1 <= self.window_samples <= self.fft_size:
            raise ConfigError(
                f"a window of {self.window_samples} samples every {self.hop_samples} does not fit "
                f"a transform of {self.fft_size}"
            )
        if not 0 <= self.mel_low_hz < self.mel_high_hz <= self.sample_rate_hz / 2:
            raise ConfigError(
                f"mel channels from {self.mel_low_hz} Hz to {self.mel_high_hz} Hz do not fit below half the "
                f"sample rate of {self.sample_rate_hz} Hz"
            )


def read_image_settings(raw: Mapping[str, Any], vision: VisionConfig) -> ImageSettings:
    """Reads the largest number of crops from `raw`; crop and patch sizes are the vision tower's.

    Raises:
        ConfigError: a value contradicts the vision tower or is of the wrong type.
    """
    _expect_same(raw, "size", {"height": vision.image_size, "width": vision.image_size})
    _expect_same(raw, "patch_size", vision.patch_size)
    return ImageSettings(
        crop_size_px=vision.image_size,
        patch_size_px=vision.patch_size,
        max_crops=_integer(raw, "dynamic_hd", ImageSettings.max_crops),
    )


def read_audio_settings(raw: Mapping[str, Any], speech: SpeechConfig) -> AudioSettings:
    """Reads the frames per token, and the mel settings where `raw` has them under transformers' names.

    Raises:
        ConfigError: a value contradicts the speech encoder, is of the wrong type or is not supported.
    """
    frames_per_token = _either(raw, "audio_compression_rate", "compression_rate", speech.time_reduction)
    if frames_per_token != speech.time_reduction:
        raise ConfigError(
            f"audio_compression_rate is {frames_per_token}, but the speech encoder makes one token "
            f"of {speech.time_reduction} frames"
        )
    for key, older_key in (
        ("audio_downsample_rate", "qformer_compression_rate"),
        ("audio_feat_stride", "feat_stride"),
    ):
        if _either(raw, key, older_key, 1) != 1:
            raise ConfigError(f"{key} is {_either(raw, key, older_key, 1)}; only 1 is supported")
    _expect_same(raw, "feature_size", speech.input_size)
    return AudioSettings(
        sample_rate_hz=_integer(raw, "sampling_rate", AudioSettings.sample_rate_hz),
        window_samples=_integer(raw, "win_length", AudioSettings.window_samples),
        hop_samples=_integer(raw, "hop_length", AudioSettings.hop_samples),
        fft_size=_integer(raw, "n_fft", AudioSettings.fft_size),
        num_mels=speech.input_size,
        mel_low_hz=_number(raw, "mel_min_frequency", AudioSettings.mel_low_hz),
        mel_high_hz=_number(raw, "mel_max_frequency", AudioSettings.mel_high_hz),
        preemphasis=_number(raw, "preemphasis", AudioSettings.preemphasis),
        frames_per_token=frames_per_token,
    )


def _either(raw: Mapping[str, Any], key: str, older_key: str, default: Any) -> Any:
    """Older copies of the release's file leave `audio_` off its keys."""
    return raw.get(key, raw.get(older_key, default))


def _integer(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"the preprocessor's {key} is {value!r}; it must be an integer")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float) -> float:
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(f"the preprocessor's {key} is {value!r}; it must be a number")
    return value


def _expect_same(raw: Mapping[str, Any], key: str, expected: Any) -> None:
    if key in raw and raw[key] != expected:
        raise ConfigError(f"the preprocessor's {key} is {raw[key]!r}, but config.json says {expected!r}")
