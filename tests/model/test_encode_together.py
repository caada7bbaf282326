"""Media of many conversations pass the encoders together, and each becomes what it becomes alone."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch

from conversations import MODES, conversation, picture, sound
from phi4.checkpoint.weights import LoadedModel
from phi4.inputs import AudioFrames, ImageCrops
from phi4.kernels.instructions import LEVELS
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.speech import MAX_CHUNK_TOKENS, Speech
from phi4.model.vision import MAX_PATCHES_TOGETHER, Vision


@pytest.fixture
def vision(tiny: LoadedModel) -> Vision:
    module: Vision = tiny.model.vision
    return module


@pytest.fixture
def speech(tiny: LoadedModel) -> Speech:
    module: Speech = tiny.model.speech
    return module


@pytest.fixture
def passes(vision: Vision, speech: Speech) -> Iterator[list[int]]:
    """How many crops or clips each pass of an encoder took."""
    sizes: list[int] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[0]))
        for block in (vision.encoder.layers[0], speech.encoder.blocks[0])
    ]
    yield sizes
    for hook in hooks:
        hook.remove()


def pictures(vision: Vision, *grids: tuple[int, int]) -> list[ImageCrops]:
    weight = vision.encoder.patch_embedding.weight
    patches = int(vision.encoder.position_embedding.num_embeddings**0.5)
    return [
        picture(patches * weight.shape[-1], patches, seed, columns, rows) for seed, (columns, rows) in enumerate(grids)
    ]


def test_a_picture_becomes_what_it_becomes_alone(vision: Vision, passes: list[int]) -> None:
    images = pictures(vision, (2, 1), (1, 1), (3, 2), (1, 1))
    images[1].mask.fill_(True)  # all picture, beside others that are padded
    together = vision.encode_together(images)
    assert passes == [3 + 2 + 7 + 2]
    for image, rows in zip(images, together, strict=True):
        torch.testing.assert_close(rows, vision(image), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_damaged_picture_leaves_its_company_alone(vision: Vision) -> None:
    images = pictures(vision, (2, 1), (1, 1))
    images[0].crops.fill_(torch.nan)
    damaged, whole = vision.encode_together(images)
    assert bool(damaged.isnan().any())
    torch.testing.assert_close(whole, vision(images[1]), atol=1e-5, rtol=1e-5)


def test_no_pass_takes_more_patches_than_the_largest_picture(
    vision: Vision, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(vision, *[(3, 3)] * 5, (6, 7))
    monkeypatch.setattr("phi4.model.vision.MAX_PATCHES_TOGETHER", 37 * images[0].mask[0].numel())
    vision.encode_together(images)
    assert sorted(passes) == [20, 30, 43]
    assert MAX_PATCHES_TOGETHER == 37 * 32 * 32


def test_a_clip_becomes_what_it_becomes_alone_with_the_projector_of_its_conversation(
    speech: Speech, passes: list[int]
) -> None:
    sounds = [sound(length, seed=length) for length in (57, 100, 3 * 8 * MAX_CHUNK_TOKENS, 9, 100)]
    sounds.append(AudioFrames(torch.full((33, 80), torch.nan)))
    projectors = ["speech", "vision", "speech", "speech", "speech", "speech"]
    together = speech.encode_together(sounds, projectors)
    assert sorted(passes) == [3, 5]
    for audio, projector, rows in list(zip(sounds, projectors, together, strict=True))[:-1]:
        torch.testing.assert_close(rows, speech(audio, projector), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[1], together[4], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@torch.inference_mode()
def test_company_changes_no_bit_of_an_answer(tiny: LoadedModel, dtype: torch.dtype) -> None:
    model = Phi4Multimodal(tiny.config).eval()
    model.load_state_dict(tiny.model.state_dict())
    model.to(dtype)
    images = pictures(model.vision, (2, 1), (1, 1), (3, 2), (1, 1))
    images[1].mask.fill_(True)
    for image, rows in zip(images, model.vision.encode_together(images), strict=True):
        assert torch.equal(rows, model.vision(image))
    sounds = [sound(length, seed=length) for length in (57, 100, 9, 333)]
    together = model.speech.encode_together(sounds, ["speech"] * 4)
    for audio, rows in zip(sounds, together, strict=True):
        assert torch.equal(rows, model.speech(audio, "speech"))


@torch.inference_mode()
def test_media_of_all_kinds_keep_their_order(tiny: LoadedModel) -> None:
    conversations = [conversation(tiny.config, mode, 4, seed) for seed in range(2) for mode in MODES]
    media = [medium for inputs in conversations for medium in inputs.media]
    adapters = [tiny.model.adapter_for(inputs.modalities) for inputs in conversations for _ in inputs.media]
    together = tiny.model.encode_together(media, adapters)
    for medium, adapter, rows in zip(media, adapters, together, strict=True):
        torch.testing.assert_close(rows, tiny.model.encode(medium, adapter), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif("avx512_bf16" not in LEVELS, reason="media pass one by one here")
@torch.inference_mode()
def test_no_stock_product_sees_company(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = deepcopy(tiny.model.vision.encoder).bfloat16()
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *_: pytest.fail("a stock product"))
    assert tiny.config.vision is not None
    side = tiny.config.vision.image_size
    encoder._embed_patches(torch.zeros(2, 3, side, side).bfloat16())
