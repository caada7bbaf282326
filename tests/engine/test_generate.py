"""What generation promises: cached = uncached, chunked = whole, alone = together, text untouched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversations import MODES, conversation
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.config import ADAPTED_LINEARS
from phi4.engine.generate import Request, generate, score
from phi4.engine.sampling import Sampling
from phi4.engine.simple_row import Row
from phi4.errors import CapacityError, InputError
from phi4.inputs import ModelInputs
from phi4.model.decoder import Phi4Mini

mixtures = st.lists(st.tuples(st.sampled_from(MODES), st.integers(2, 40), st.integers(0, 99)), min_size=1, max_size=5)


def answers(loaded: LoadedModel, conversations: list[ModelInputs], max_tokens: int) -> list[list[int]]:
    """Greedy tokens of conversations that are answered together."""
    requests = [Request(inputs, Sampling(max_tokens=max_tokens)) for inputs in conversations]
    tokens: list[list[int]] = [[] for _ in requests]
    for token in generate(loaded.model, requests, eos_token_ids=()):
        tokens[token.request].append(token.token_id)
    return tokens


def assert_close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    """Within 1e-5 of the scale."""
    assert float((ours - reference).abs().max()) <= 1e-5 * float(reference.abs().max())


def test_tiny_answers_with_many_different_tokens(tiny: LoadedModel) -> None:
    """Otherwise equal answers, here and below, would show little."""
    conversations = [conversation(tiny.config, mode, 20, seed=1) for mode in MODES]
    tokens = answers(tiny, conversations, 16)
    assert all(len(set(answer)) > 8 for answer in tokens)
    assert len({tuple(answer) for answer in tokens}) == len(MODES)


@settings(max_examples=25, deadline=None)
@given(mixtures)
def test_logits_together_equal_logits_alone(tiny: LoadedModel, mixture: list[tuple[str, int, int]]) -> None:
    conversations = [conversation(tiny.config, *row) for row in mixture]
    for inputs, together in zip(conversations, score(tiny.model, conversations), strict=True):
        (alone,) = score(tiny.model, [inputs])
        assert_close(together, alone)


@settings(max_examples=15, deadline=None)
@given(mixtures)
def test_answers_together_equal_answers_alone(tiny: LoadedModel, mixture: list[tuple[str, int, int]]) -> None:
    conversations = [conversation(tiny.config, *row) for row in mixture]
    alone = [answers(tiny, [inputs], 8)[0] for inputs in conversations]
    assert answers(tiny, conversations, 8) == alone


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(MODES), st.integers(2, 60), st.integers(1, 17))
def test_cached_pieces_of_any_size_give_the_logits_of_the_whole(
    tiny: LoadedModel, mode: str, num_text_tokens: int, piece: int
) -> None:
    inputs = conversation(tiny.config, mode, num_text_tokens, seed=3)
    (whole,) = score(tiny.model, [inputs])
    pieces = []
    with torch.inference_mode():
        row = Row(tiny.model, inputs, Sampling())
        while row.num_cached < len(row.token_ids):
            segment = row.next_segment(piece)
            embeddings = row.embed(tiny.model, segment.cached, segment.cached + segment.length)
            pieces.append(tiny.model.logits(tiny.model(embeddings, tiny.model.step([segment]))))
            row.num_cached += segment.length
    assert_close(torch.cat(pieces), whole)


@torch.inference_mode()
@pytest.mark.parametrize("wanted", [[], [0], [3, 4, 30], [59, 2, 41]])
def test_asking_for_some_rows_gives_what_all_rows_hold_there(tiny: LoadedModel, wanted: list[int]) -> None:
    rows = [Row(tiny.model, conversation(tiny.config, mode, 20, seed=4), Sampling()) for mode in MODES]
    segments = [replace(row.next_segment(100), cache=None) for row in rows]
    embeddings = torch.cat([row.embed(tiny.model, 0, row.num_prompt_tokens) for row in rows])
    everything = tiny.model(embeddings, tiny.model.step(segments))
    some = tiny.model(embeddings, tiny.model.step(segments, wanted))
    assert some.shape == (len(wanted), everything.shape[1])
    torch.testing.assert_close(some, everything[wanted])


@pytest.mark.parametrize("mode", MODES)
def test_every_greedy_token_is_the_best_of_an_uncached_pass(tiny: LoadedModel, mode: str) -> None:
    inputs = conversation(tiny.config, mode, 12, seed=5)
    (answer,) = answers(tiny, [inputs], 10)
    full = ModelInputs((*inputs.token_ids, *answer), inputs.media)
    (logits,) = score(tiny.model, [full])
    assert logits[len(inputs.token_ids) - 1 : -1].argmax(-1).tolist() == answer


@pytest.mark.parametrize("length", [4094, 4095, 4096, 4097])
def test_a_row_that_grows_past_4096_equals_a_fresh_long_prefill(tiny: LoadedModel, length: int) -> None:
    inputs = conversation(tiny.config, "vision", length - 17, seed=1)
    assert len(inputs.token_ids) == length
    neighbour = conversation(tiny.config, "speech", 20, seed=2)
    together = answers(tiny, [neighbour, inputs], 5)
    assert together == [answers(tiny, [neighbour], 5)[0], answers(tiny, [inputs], 5)[0]]
    so_far = inputs
    for token_id in together[1]:
        (logits,) = score(tiny.model, [so_far])
        assert token_id == int(logits[-1].argmax())
        so_far = ModelInputs((*so_far.token_ids, token_id), inputs.media)


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


def test_encoders_run_once_per_medium_however_long_the_answer(tiny: LoadedModel) -> None:
    calls = []
    handles = [
        part.register_forward_hook(lambda *_: calls.append(1)) for part in (tiny.model.vision, tiny.model.speech)
    ]
    answers(tiny, [conversation(tiny.config, "vision and speech", 10, seed=0)], 12)
    for handle in handles:
        handle.remove()
    assert len(calls) == 2


def test_an_end_token_ends_the_answer(tiny: LoadedModel) -> None:
    inputs = conversation(tiny.config, "text", 10, seed=0)
    (answer,) = answers(tiny, [inputs], 4)
    events = list(generate(tiny.model, [Request(inputs, Sampling(max_tokens=4))], eos_token_ids=(9999, answer[2])))
    stop_at = answer.index(answer[2])
    assert [event.token_id for event in events] == answer[: stop_at + 1]
    assert events[-1].finish_reason == "stop"


def test_a_prompt_beyond_the_context_is_refused(tiny: LoadedModel) -> None:
    limit = tiny.config.decoder.max_position_embeddings
    with pytest.raises(CapacityError, match=f"{limit + 1} tokens, more than the context of {limit}"):
        answers(tiny, [ModelInputs((40,) * (limit + 1))], 1)


@torch.inference_mode()
def test_an_answer_ends_where_the_context_does(tiny: LoadedModel) -> None:
    config = replace(tiny.config.decoder, max_position_embeddings=20, original_max_position_embeddings=20)
    small = Phi4Mini(config)
    state = tiny.model.language.state_dict()
    small.load_state_dict({name: state[name] for name in small.state_dict()})
    request = Request(ModelInputs((40,) * 17), Sampling(max_tokens=50))
    events = list(generate(small, [request], eos_token_ids=()))
    assert [event.finish_reason for event in events] == [None, None, "length"]


def test_every_token_reports_the_table_that_it_was_computed_with(tiny: LoadedModel) -> None:
    request = Request(conversation(tiny.config, "text", 4095, seed=0), Sampling(max_tokens=4))
    events = list(generate(tiny.model, [request], eos_token_ids=()))
    assert [event.rotary for event in events] == ["short", "short", "long", "long"]


def test_an_empty_prompt_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(InputError, match="empty"):
        answers(tiny, [ModelInputs(())], 1)


def test_a_bare_language_model_refuses_a_picture(tiny: LoadedModel) -> None:
    with pytest.raises(InputError, match="no vision"):
        score(Phi4Mini(tiny.config.decoder), [conversation(tiny.config, "vision", 4, seed=0)])


def test_a_seed_repeats_an_answer_and_another_seed_does_not(tiny: LoadedModel) -> None:
    inputs = conversation(tiny.config, "text", 10, seed=0)

    def draw(seed: int) -> list[int]:
        request = Request(inputs, Sampling(max_tokens=20, temperature=1.0, seed=seed))
        return [token.token_id for token in generate(tiny.model, [request], eos_token_ids=())]

    assert draw(1) == draw(1) != draw(2)
