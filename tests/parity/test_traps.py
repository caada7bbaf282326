"""Where the public port is wrong, we follow the release, and these tests show the difference (facts sheet 10)."""

from pathlib import Path

import torch
from transformers import Phi4MultimodalForCausalLM
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalVisionModel

from parity.reference import Pair, decoder_sizes, native_config, randomise
from phi4.checkpoint.weights import load_model
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.inputs import AudioFrames, ModelInputs


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def test_trap_1_an_unmasked_picture_is_seen_in_both_directions(multimodal: Pair) -> None:
    """The port's SDPA tower runs causal when no patch is masked; its eager tower and ours do not."""
    crops = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    eager = multimodal.theirs.model.embed_tokens_extend.image_embed.img_processor
    config = native_config().vision_config
    config._attn_implementation = "sdpa"
    sdpa = Phi4MultimodalVisionModel(config).eval()
    sdpa.load_state_dict(eager.state_dict())
    ours = multimodal.ours.vision.encoder(crops, mask)
    towers = [tower(crops, mask, output_hidden_states=True).hidden_states[-2] for tower in (eager, sdpa)]
    assert relative_difference(ours, towers[0]) < 2e-5
    assert relative_difference(ours, towers[1]) > 1e-2


@torch.inference_mode()
def test_trap_2_a_short_clip_beside_a_long_one_is_encoded_as_if_alone(multimodal: Pair) -> None:
    """The port adds its padding mask to the attention scores instead of hiding the padding."""
    generator = torch.Generator().manual_seed(0)
    short, long = torch.randn(160, 80, generator=generator), torch.randn(800, 80, generator=generator)
    encoder = multimodal.theirs.model.embed_tokens_extend.audio_embed.encoder
    padded = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    real = torch.arange(800) < torch.tensor([[160], [800]])
    alone = encoder(short[None], None)[0]
    ours = multimodal.ours.speech.encoder(AudioFrames(short).frames)
    assert relative_difference(ours, alone) < 2e-5
    assert relative_difference(ours, encoder(padded, real)[0, :20]) > 1e-3


def test_trap_3b_an_answer_grows_past_the_original_context(tmp_path: Path) -> None:
    """The port's multimodal class loses its cache there; ours goes on as a fresh prefill with long factors would."""
    config = native_config()
    config.original_max_position_embeddings = 16
    config.rope_parameters = decoder_sizes()["rope_parameters"] | {"original_max_position_embeddings": 16}
    theirs = Phi4MultimodalForCausalLM(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path).model
    prompt = tuple(range(20, 32))

    request = Request(ModelInputs(prompt), Sampling(max_tokens=12))
    answer = [token.token_id for token in Engine(ours, eos_token_ids=()).submit(request)]
    so_far = prompt
    for token_id in answer:
        (logits,) = score(ours, [ModelInputs(so_far)])
        assert token_id == int(logits[-1].argmax())
        so_far += (token_id,)

    generated = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, len(prompt) :].tolist()
    assert generated[:4] == answer[:4]
    assert generated != answer
