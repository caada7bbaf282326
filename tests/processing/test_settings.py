"""Preprocessor settings: both spellings of the release, transformers' files, and contradictions."""

from typing import Any

import pytest

from phi4.config import SpeechConfig, VisionConfig
from phi4.errors import ConfigError
from phi4.processing.settings import (
    AudioSettings,
    ImageSettings,
    read_audio_settings,
    read_image_settings,
)

RELEASED = {"audio_compression_rate": 8, "audio_downsample_rate": 1, "audio_feat_stride": 1, "dynamic_hd": 36}
OLDER = {"compression_rate": 8, "qformer_compression_rate": 1, "feat_stride": 1, "dynamic_hd": 36}


@pytest.mark.parametrize("raw", [RELEASED, OLDER, {}])
def test_both_spellings_give_the_releases_settings(raw: dict[str, int]) -> None:
    assert read_image_settings(raw, VisionConfig()) == ImageSettings(448, 14, 36)
    assert read_audio_settings(raw, SpeechConfig()) == AudioSettings()


def test_other_sizes_come_from_the_files() -> None:
    vision = VisionConfig(image_size=112, patch_size=28)
    assert read_image_settings({"dynamic_hd": 4}, vision) == ImageSettings(112, 28, 4)
    raw = {"compression_rate": 4, "sampling_rate": 8000, "mel_max_frequency": 3800, "n_fft": 256, "win_length": 200}
    audio = read_audio_settings({**raw, "hop_length": 80}, SpeechConfig(input_size=40, time_reduction=4))
    assert (audio.sample_rate_hz, audio.num_mels, audio.mel_high_hz, audio.frames_per_token) == (8000, 40, 3800, 4)
    assert (audio.fft_size, audio.window_samples, audio.hop_samples) == (256, 200, 80)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({"audio_compression_rate": 4}, "audio_compression_rate is 4"),
        ({"audio_downsample_rate": 2}, "audio_downsample_rate is 2"),
        ({"feat_stride": 2}, "audio_feat_stride is 2"),
        ({"feature_size": 128}, "feature_size is 128"),
        ({"sampling_rate": 8000}, "half the sample rate of 8000 Hz"),
        ({"win_length": 1024}, "does not fit"),
        ({"hop_length": 0}, "does not fit"),
    ],
)
def test_audio_settings_that_contradict_the_model_are_refused(raw: dict[str, int], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_audio_settings(raw, SpeechConfig())


@pytest.mark.parametrize("raw", [{"size": {"height": 336, "width": 336}}, {"patch_size": 16}, {"dynamic_hd": 0}])
def test_image_settings_that_contradict_the_model_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(raw))):
        read_image_settings(raw, VisionConfig())


@pytest.mark.parametrize("value", ["16000", 400.5, None, True, [400]])
@pytest.mark.parametrize("key", ["sampling_rate", "win_length", "hop_length", "n_fft"])
def test_what_is_no_integer_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key} is .*; it must be an integer"):
        read_audio_settings({key: value}, SpeechConfig())


@pytest.mark.parametrize("value", ["36", 36.5, None])
def test_a_number_of_crops_that_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"dynamic_hd is .*; it must be an integer"):
        read_image_settings({"dynamic_hd": value}, VisionConfig())


@pytest.mark.parametrize("value", ["0.97", float("nan"), None, False])
@pytest.mark.parametrize("key", ["mel_min_frequency", "mel_max_frequency", "preemphasis"])
def test_what_is_no_number_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key} is .*; it must be a number"):
        read_audio_settings({key: value}, SpeechConfig())
