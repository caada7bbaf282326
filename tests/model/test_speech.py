"""The speech encoder: lengths, windows of the front end, chunks of long clips."""

import pytest
import torch

from conversations import sound
from phi4.checkpoint.weights import LoadedModel
from phi4.config import SpeechConfig
from phi4.errors import ConfigError
from phi4.model.speech import MAX_CHUNK_TOKENS, ConformerEncoder, ConformerFeedForward


@pytest.fixture(scope="module")
def encoder(tiny: LoadedModel) -> ConformerEncoder:
    module: ConformerEncoder = tiny.model.speech.encoder
    return module


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 98, 2998, 4001])
def test_eight_frames_make_a_token_rounded_up(encoder: ConformerEncoder, num_frames: int) -> None:
    assert encoder(sound(num_frames, seed=0).frames).shape[0] == -(-num_frames // 8)


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [4000, 4001, 4007, 4008, 8000, 8003, 13000])
def test_a_clip_passes_the_front_end_in_windows_as_it_would_whole(encoder: ConformerEncoder, num_frames: int) -> None:
    frames = sound(num_frames, seed=0).frames
    front_end = encoder.subsampling
    whole = front_end.out(front_end.conv(frames[None, None])[0].transpose(0, 1).flatten(1))
    torch.testing.assert_close(front_end(frames), whole, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_no_context_crosses_a_cut(encoder: ConformerEncoder) -> None:
    frames = sound(8 * 2 * MAX_CHUNK_TOKENS, seed=0).frames
    changed = frames.clone()
    changed[8 * MAX_CHUNK_TOKENS + 16 :] += 1.0  # behind what the front end of the first chunk can see
    before, after = encoder(frames), encoder(changed)
    assert torch.equal(before[:MAX_CHUNK_TOKENS], after[:MAX_CHUNK_TOKENS])
    assert not torch.allclose(before[MAX_CHUNK_TOKENS:], after[MAX_CHUNK_TOKENS:])


@torch.inference_mode()
def test_the_bias_depends_on_the_clamped_distance(encoder: ConformerEncoder) -> None:
    module = encoder.relative_attention_bias
    limit = module.max_distance
    bias = module(limit + 3)
    assert torch.equal(bias[:, limit + 2, 0], module.weight[0])  # key far before the query
    assert torch.equal(bias[:, 0, limit + 2], module.weight[2 * limit - 1])  # key far behind it
    assert torch.equal(bias[:, 5, 4], module.weight[limit - 1])


def test_quantised_gates_that_are_no_whole_blocks_are_refused() -> None:
    config = SpeechConfig(hidden_size=32, intermediate_size=24, num_attention_heads=2, linear_bits=8)
    with pytest.raises(ConfigError, match="multiple of 16"):
        ConformerFeedForward(config)
