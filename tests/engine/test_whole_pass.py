"""What whole passes promise: cached = uncached, chunked = whole, together = alone, text untouched."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cached_pass import cached_logits
from conversations import MODES, conversation
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.config import ADAPTED_LINEARS
from phi4.engine.whole_pass import embed_whole, score, whole_segment
from phi4.errors import CapacityError, InputError
from phi4.inputs import ModelInputs
from phi4.model.decoder import Phi4Mini

mixtures = st.lists(st.tuples(st.sampled_from(MODES), st.integers(2, 40), st.integers(0, 99)), min_size=1, max_size=5)


def assert_close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    """Within 1e-5 of the scale."""
    assert float((ours - reference).abs().max()) <= 1e-5 * float(reference.abs().max())


@settings(max_examples=25, deadline=None)
@given(mixtures)
def test_logits_together_equal_logits_alone(tiny: LoadedModel, mixture: list[tuple[str, int, int]]) -> None:
    conversations = [conversation(tiny.config, *row) for row in mixture]
    for inputs, together in zip(conversations, score(tiny.model, conversations), strict=True):
        (alone,) = score(tiny.model, [inputs])
        assert_close(together, alone)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(MODES), st.integers(2, 60), st.integers(1, 17))
def test_cached_pieces_of_any_size_give_the_logits_of_the_whole(
    tiny: LoadedModel, mode: str, num_text_tokens: int, piece: int
) -> None:
    inputs = conversation(tiny.config, mode, num_text_tokens, seed=3)
    (whole,) = score(tiny.model, [inputs])
    assert_close(cached_logits(tiny.model, inputs, piece), whole)


@torch.inference_mode()
@pytest.mark.parametrize("wanted", [[], [0], [3, 4, 30], [59, 2, 41]])
def test_asking_for_some_rows_gives_what_all_rows_hold_there(tiny: LoadedModel, wanted: list[int]) -> None:
    conversations = [conversation(tiny.config, mode, 20, seed=4) for mode in MODES]
    segments = [whole_segment(tiny.model, inputs) for inputs in conversations]
    embeddings = torch.cat([embed_whole(tiny.model, inputs) for inputs in conversations])
    everything = tiny.model(embeddings, tiny.model.step(segments))
    some = tiny.model(embeddings, tiny.model.step(segments, wanted))
    assert some.shape == (len(wanted), everything.shape[1])
    torch.testing.assert_close(some, everything[wanted])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_text_row_is_bit_identical_with_the_adapters_of_its_neighbours_on_and_off(
    tiny_directory: Path, dtype: torch.dtype
) -> None:
    tiny = load_model(tiny_directory, dtype)
    conversations = [conversation(tiny.config, mode, 20, seed=7) for mode in ("vision", "text", "speech")]
    picture_on, on, sound_on = score(tiny.model, conversations)
    scales = [
        layer.get_submodule(name).scales for layer in tiny.model.language.model.layers for name in ADAPTED_LINEARS
    ]
    for scale in scales:
        scale.update(dict.fromkeys(scale, 0.0))
    picture_off, off, sound_off = score(tiny.model, conversations)
    assert torch.equal(on, off)
    assert not torch.equal(picture_on, picture_off)
    assert not torch.equal(sound_on, sound_off)


def test_text_is_bit_identical_to_the_bare_base_model(tiny: LoadedModel) -> None:
    bare = Phi4Mini(tiny.config.decoder)
    state = tiny.model.language.state_dict()
    bare.load_state_dict({name: state[name] for name in bare.state_dict()})
    text = conversation(tiny.config, "text", 30, seed=0)
    assert torch.equal(score(tiny.model, [text])[0], score(bare, [text])[0])


def test_a_prompt_beyond_the_context_is_refused(tiny: LoadedModel) -> None:
    limit = tiny.config.decoder.max_position_embeddings
    with pytest.raises(CapacityError, match=f"{limit + 1} tokens, more than the context of {limit}"):
        score(tiny.model, [ModelInputs((40,) * (limit + 1))])


def test_an_empty_prompt_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(InputError, match="empty"):
        score(tiny.model, [ModelInputs(())])


def test_a_bare_language_model_refuses_a_picture(tiny: LoadedModel) -> None:
    with pytest.raises(InputError, match="no vision"):
        score(Phi4Mini(tiny.config.decoder), [conversation(tiny.config, "vision", 4, seed=0)])
