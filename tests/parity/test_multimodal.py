"""Vision, speech and all four modes against transformers' Phi4Multimodal, eager attention (facts sheet, trap 1)."""

import pytest
import torch

from parity.reference import AUDIO_TOKEN, CROP_PX, IMAGE_TOKEN, PATCH_PX, Pair, assert_parity
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.inputs import AudioFrames, ImageCrops, Medium, ModelInputs

SIDE = CROP_PX // PATCH_PX


def picture(columns: int, rows: int, masked_columns: int = 0, masked_rows: int = 0) -> ImageCrops:
    """Random crops; the last patch columns or rows of the joined picture are padding."""
    generator = torch.Generator().manual_seed(columns * 10 + rows)
    crops = torch.randn(1 + columns * rows, 3, CROP_PX, CROP_PX, generator=generator)
    joined = torch.ones(rows * SIDE, columns * SIDE, dtype=torch.bool)
    joined[rows * SIDE - masked_rows :] = False
    joined[:, columns * SIDE - masked_columns :] = False
    tiles = joined.view(rows, SIDE, columns, SIDE).transpose(1, 2).reshape(-1, SIDE, SIDE)
    return ImageCrops(crops, torch.cat((torch.ones(1, SIDE, SIDE, dtype=torch.bool), tiles)), columns, rows)


def sound(num_frames: int) -> AudioFrames:
    return AudioFrames(torch.randn(num_frames, 80, generator=torch.Generator().manual_seed(num_frames)))


PICTURES = {
    "one tile": picture(1, 1),
    "six tiles": picture(3, 2),
    "padded right, even": picture(2, 2, masked_columns=2),
    "padded right, odd": picture(3, 1, masked_columns=3),
    "padded below, odd": picture(2, 3, masked_rows=1),
    "padded below, even": picture(1, 4, masked_rows=2),
}


def native_image(image: ImageCrops) -> dict[str, torch.Tensor]:
    return {
        "image_pixel_values": image.crops[None],
        "image_sizes": torch.tensor([[image.rows * CROP_PX, image.columns * CROP_PX]]),
        "image_attention_mask": image.mask[None],
    }


def native_audio(audio: AudioFrames) -> dict[str, torch.Tensor]:
    return {
        "audio_input_features": audio.frames[None],
        "audio_embed_sizes": torch.tensor([-(-audio.frames.shape[0] // 8)]),
    }


@torch.inference_mode()
def conversation(pair: Pair, image: ImageCrops | None, audio: AudioFrames | None) -> ModelInputs:
    ids, media = [5, 6, 7], []
    if image is not None:
        length = pair.ours.vision(image).shape[0]
        media.append(Medium("vision", image, len(ids), length, ""))
        ids += [IMAGE_TOKEN] * length + [8]
    if audio is not None:
        length = -(-audio.frames.shape[0] // 8)
        media.append(Medium("speech", audio, len(ids), length, ""))
        ids += [AUDIO_TOKEN] * length + [9]
    return ModelInputs((*ids, 10, 11), tuple(media))


@pytest.mark.parametrize("image", PICTURES.values(), ids=PICTURES)
def test_the_vision_encoder_agrees(multimodal: Pair, image: ImageCrops) -> None:
    tower = multimodal.theirs.model.embed_tokens_extend.image_embed.img_processor
    with torch.inference_mode():
        theirs = tower(image.crops, patch_attention_mask=image.mask, output_hidden_states=True).hidden_states[-2]
        ours = multimodal.ours.vision.encoder(image.crops, image.mask)
    valid = image.mask.flatten(1)
    assert_parity(ours[valid], theirs[valid])


@pytest.mark.parametrize("image", PICTURES.values(), ids=PICTURES)
def test_merge_and_projector_of_a_picture_agree(multimodal: Pair, image: ImageCrops) -> None:
    embed = multimodal.theirs.model.embed_tokens_extend.image_embed
    with torch.inference_mode():
        ours = multimodal.ours.vision(image)
        ids = torch.full((1, ours.shape[0]), IMAGE_TOKEN)
        theirs = embed(ids, torch.zeros(1, *ours.shape), **native_image(image))[0]
    assert_parity(ours, theirs)


@pytest.mark.parametrize("num_frames", [1, 8, 9, 333, 4000, 4001, 9000])
def test_the_speech_encoder_agrees_for_one_clip(multimodal: Pair, num_frames: int) -> None:
    """4000 frames are 500 tokens, the longest clip that is not cut; beyond, the zero tail is attended to."""
    audio = sound(num_frames)
    encoder = multimodal.theirs.model.embed_tokens_extend.audio_embed.encoder
    with torch.inference_mode():
        assert_parity(multimodal.ours.speech.encoder(audio.frames), encoder(audio.frames[None], None)[0])


@pytest.mark.parametrize("projector", ["speech", "vision"])
def test_both_audio_projectors_agree(multimodal: Pair, projector: str) -> None:
    audio = sound(100)
    embed = multimodal.theirs.model.embed_tokens_extend.audio_embed
    with torch.inference_mode():
        ours = multimodal.ours.speech(audio, projector)
        ids = torch.full((1, ours.shape[0]), AUDIO_TOKEN)
        theirs = embed(ids, torch.zeros(1, *ours.shape), **native_audio(audio), audio_projection_mode=projector)[0]
    assert_parity(ours, theirs)


MODES = {
    "text": (None, None, None),
    "vision": ("vision", PICTURES["padded below, odd"], None),
    "speech": ("speech", None, sound(200)),
    "vision and speech": ("vision", PICTURES["padded right, odd"], sound(90)),
}


def their_arguments(pair: Pair, mode: str) -> dict[str, torch.Tensor]:
    """Chooses the adapter and collects the media; without one chosen, the native class runs the bare model."""
    adapter, image, audio = MODES[mode]
    if adapter is None:
        pair.theirs.disable_adapters()
    else:
        pair.theirs.enable_adapters()
        pair.theirs.set_adapter(adapter)
    return (native_image(image) if image else {}) | (native_audio(audio) if audio else {})


@pytest.mark.parametrize("mode", MODES)
def test_logits_agree_in_every_mode(multimodal: Pair, mode: str) -> None:
    _, image, audio = MODES[mode]
    inputs = conversation(multimodal, image, audio)
    with torch.inference_mode():
        theirs = multimodal.theirs(torch.tensor([inputs.token_ids]), **their_arguments(multimodal, mode)).logits[0]
    (ours,) = score(multimodal.ours, [inputs])
    assert_parity(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_64_greedy_tokens_agree_in_every_mode(multimodal: Pair, mode: str) -> None:
    _, image, audio = MODES[mode]
    inputs = conversation(multimodal, image, audio)
    theirs = multimodal.theirs.generate(
        torch.tensor([inputs.token_ids]),
        attention_mask=torch.ones(1, len(inputs.token_ids), dtype=torch.long),
        **their_arguments(multimodal, mode),
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(inputs.token_ids) :]
    request = Request(inputs, Sampling(max_tokens=64))
    ours = [token.token_id for token in Engine(multimodal.ours, eos_token_ids=()).submit(request)]
    assert ours == theirs.tolist()


def test_every_adapter_changes_the_answer(multimodal: Pair) -> None:
    """Otherwise agreement on all modes would show nothing about the adapter rule."""
    _, image, _ = MODES["vision"]
    inputs = conversation(multimodal, image, None)
    their_arguments(multimodal, "text")
    with torch.inference_mode():
        bare = multimodal.theirs(torch.tensor([inputs.token_ids]), **native_image(image)).logits[0]
    (adapted,) = score(multimodal.ours, [inputs])
    assert float((adapted - bare).abs().max() / bare.abs().max()) > 1e-2
