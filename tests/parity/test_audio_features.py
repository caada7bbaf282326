"""Log-mel features against transformers' extractor, channel 79 apart: its filter bank has one bin too many there."""

import numpy as np
import pytest
from transformers import Phi4MultimodalFeatureExtractor

from phi4.processing.audio import audio_to_frames, num_audio_tokens
from phi4.processing.settings import AudioSettings

RANDOM = np.random.default_rng(0)
TIMES = np.arange(32000) / 16000
SOUNDS = {
    "white noise": RANDOM.uniform(-0.5, 0.5, 16000),
    "a rising tone": 0.4 * np.sin(2 * np.pi * (200 + 1500 * TIMES) * TIMES),
    "near silence": 1e-4 * RANDOM.standard_normal(24123),
    "one frame": RANDOM.uniform(-0.5, 0.5, 400),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_features_agree_with_transformers(name: str) -> None:
    samples = SOUNDS[name].astype(np.float32)
    reference = Phi4MultimodalFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt")
    audio = audio_to_frames(samples, 16000, AudioSettings())
    expected = reference["audio_input_features"][0]
    assert audio.frames.shape == expected.shape
    assert num_audio_tokens(audio, AudioSettings()) == int(reference["audio_embed_sizes"][0])
    # The reference windows in double precision, we in single as the release does (facts sheet 5.1).
    assert (audio.frames - expected)[:, :79].abs().max() <= 2e-5


def test_channel_79_is_where_transformers_differs_from_the_release() -> None:
    samples = (0.4 * np.sin(2 * np.pi * 7687 * TIMES)).astype(np.float32)
    expected = Phi4MultimodalFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt")
    difference = audio_to_frames(samples, 16000, AudioSettings()).frames - expected["audio_input_features"][0]
    assert difference[:, 79].abs().max() > 0.1  # measured as 0.18 in the facts sheet
