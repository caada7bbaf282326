"""What the engine promises of single answers: tokens, limits, seeds, errors, threads, and that nothing is left over."""

import asyncio
import threading
from dataclasses import replace

import pytest
import torch

from conversations import MODES, conversation
from phi4.checkpoint.weights import LoadedModel
from phi4.engine.engine import Engine
from phi4.engine.handle import Handle
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import GeneratedToken, Request
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.errors import CapacityError, CheckpointError, ClosedError, InputError
from phi4.inputs import Medium, ModelInputs
from phi4.kernels.instructions import LEVELS
from phi4.model.decoder import Phi4Mini


@pytest.fixture(scope="module")
def engine(tiny: LoadedModel) -> Engine:
    return Engine(tiny.model, ())


def answer(engine: Engine, inputs: ModelInputs, max_tokens: int = 8) -> list[int]:
    """Greedy tokens."""
    return [token.token_id for token in engine.submit(Request(inputs, Sampling(max_tokens=max_tokens)))]


def with_context(tiny: LoadedModel, max_tokens: int, original: int) -> Phi4Mini:
    """The tiny language model with another context."""
    config = replace(tiny.config.decoder, max_position_embeddings=max_tokens, original_max_position_embeddings=original)
    model = Phi4Mini(config)
    state = tiny.model.language.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model


def test_tiny_answers_with_many_different_tokens(tiny: LoadedModel, engine: Engine) -> None:
    """Otherwise equal answers, here and elsewhere, would show little."""
    tokens = [answer(engine, conversation(tiny.config, mode, 20, seed=1), 16) for mode in MODES]
    assert all(len(set(one)) > 8 for one in tokens)
    assert len({tuple(one) for one in tokens}) == len(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_every_greedy_token_is_the_best_of_an_uncached_pass(tiny: LoadedModel, engine: Engine, mode: str) -> None:
    inputs = conversation(tiny.config, mode, 12, seed=5)
    tokens = answer(engine, inputs, 10)
    full = ModelInputs((*inputs.token_ids, *tokens), inputs.media)
    (logits,) = score(tiny.model, [full])
    assert logits[len(inputs.token_ids) - 1 : -1].argmax(-1).tolist() == tokens


@pytest.mark.parametrize("length", [4095, 4096, 4097])
def test_a_row_that_grows_past_4096_equals_a_fresh_long_prefill(tiny: LoadedModel, engine: Engine, length: int) -> None:
    inputs = conversation(tiny.config, "vision", length - 17, seed=1)
    assert len(inputs.token_ids) == length
    tokens = answer(engine, inputs, 4)
    so_far = inputs
    for token_id in tokens:
        (logits,) = score(tiny.model, [so_far])
        assert token_id == int(logits[-1].argmax())
        so_far = ModelInputs((*so_far.token_ids, token_id), inputs.media)


def test_every_token_reports_the_table_that_it_was_computed_with(tiny: LoadedModel, engine: Engine) -> None:
    request = Request(conversation(tiny.config, "text", 4095, seed=0), Sampling(max_tokens=4))
    assert [token.rotary for token in engine.submit(request)] == ["short", "short", "long", "long"]


def test_encoders_run_once_per_medium_however_long_the_answer_and_often_the_question(tiny: LoadedModel) -> None:
    calls = []
    handles = [
        part.register_forward_hook(lambda *_: calls.append(1)) for part in (tiny.model.vision, tiny.model.speech)
    ]
    engine = Engine(tiny.model, (), SchedulerLimits(reuse_prefixes=False))
    inputs = conversation(tiny.config, "vision and speech", 10, seed=0)
    assert answer(engine, inputs, 12) == answer(engine, inputs, 12)
    for handle in handles:
        handle.remove()
    assert len(calls) == 2


@pytest.mark.parametrize(("rounds", "passes"), [(False, (1, 1)), (True, (6, 3))])
def test_media_that_come_together_are_encoded_together_unless_company_would_change_bits(
    tiny: LoadedModel, engine: Engine, monkeypatch: pytest.MonkeyPatch, rounds: bool, passes: tuple[int, int]
) -> None:
    for module in ("speech", "vision"):
        monkeypatch.setattr(f"phi4.model.{module}.rounds_with_company", lambda _: rounds)
    conversations = [conversation(tiny.config, mode, 10, seed) for seed in range(40, 43) for mode in MODES]
    alone = [answer(engine, inputs) for inputs in conversations]
    calls = []
    parts = (tiny.model.speech.encoder.blocks[0], tiny.model.vision.encoder)
    hooks = [part.register_forward_hook(lambda part, *_: calls.append(part)) for part in parts]
    together: list[list[int]] = [[] for _ in conversations]
    requests = [Request(inputs, Sampling(max_tokens=8)) for inputs in conversations]
    for index, token in Engine(tiny.model, ()).generate(requests):
        together[index].append(token.token_id)
    for hook in hooks:
        hook.remove()
    assert calls == [part for part, count in zip(parts, passes, strict=True) for _ in range(count)]
    assert together == alone


def test_an_end_token_ends_the_answer(tiny: LoadedModel, engine: Engine) -> None:
    inputs = conversation(tiny.config, "text", 10, seed=0)
    tokens = answer(engine, inputs, 4)
    stop_at = tokens.index(tokens[2])
    for stopping, sampling in (
        (Engine(tiny.model, (9999, tokens[2])), Sampling(max_tokens=4)),
        (engine, Sampling(max_tokens=4, stop_token_ids=(tokens[2],))),
    ):
        events = list(stopping.submit(Request(inputs, sampling)))
        assert [event.token_id for event in events] == tokens[: stop_at + 1]
        assert events[-1].finish_reason == "stop"


def test_an_answer_ends_where_the_context_does(tiny: LoadedModel) -> None:
    request = Request(ModelInputs((40,) * 17), Sampling(max_tokens=50))
    events = list(Engine(with_context(tiny, 20, 20), ()).submit(request))
    assert [event.finish_reason for event in events] == [None, None, "length"]


def test_a_seed_repeats_an_answer_and_another_seed_does_not(tiny: LoadedModel, engine: Engine) -> None:
    inputs = conversation(tiny.config, "text", 10, seed=0)

    def draw(seed: int) -> list[int]:
        request = Request(inputs, Sampling(max_tokens=20, temperature=1.0, seed=seed))
        return [token.token_id for token in engine.submit(request)]

    assert draw(1) == draw(1) != draw(2)


def by_choice(tokens: list[GeneratedToken], n: int) -> list[list[int]]:
    return [[token.token_id for token in tokens if token.choice == choice] for choice in range(n)]


def test_n_answers_share_their_prompt_and_the_first_is_the_only_one_of_n_1(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    inputs = conversation(tiny.config, "vision", 80, seed=3)
    sampling = Sampling(max_tokens=6, temperature=1.0, seed=4, n=3)
    answers = by_choice(list(engine.submit(Request(inputs, sampling))), 3)
    assert engine.counts.reused_tokens == 2 * 96
    assert len({tuple(one) for one in answers}) == 3
    (alone,) = by_choice(list(engine.submit(Request(inputs, replace(sampling, n=1)))), 1)
    assert answers[0] == alone


def test_a_handle_says_how_much_of_its_prompt_was_cached(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    inputs = conversation(tiny.config, "vision", 80, seed=3)
    in_blocks = (len(inputs.token_ids) - 1) // 32 * 32
    for n, cached in ((2, 0), (1, in_blocks), (2, in_blocks)):
        handle = engine.submit(Request(inputs, Sampling(max_tokens=6, n=n)))
        next(iter(handle))
        assert handle.cached_tokens == cached


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_save_steps_and_change_no_token(tiny: LoadedModel, temperature: float) -> None:
    """Three tokens are much liked, so that the answer repeats itself; its seed is another for each of two answers."""
    inputs = conversation(tiny.config, "vision", 20, seed=0)
    liked = {7: 60.0, 8: 60.0, 9: 60.0}
    sampling = Sampling(60, temperature, seed=5, n=2, logit_bias=liked, frequency_penalty=0.05, logprobs=1)
    tokens, steps = [], []
    for max_draft_tokens in (0, 5):
        ran: list[int] = []
        hook = tiny.model.register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        engine = Engine(tiny.model, (), SchedulerLimits(max_draft_tokens=max_draft_tokens))
        tokens.append(by_choice(list(engine.submit(Request(inputs, sampling))), 2))
        steps.append(len(ran))
        hook.remove()
    assert tokens[0] == tokens[1]
    assert steps[1] < 0.9 * steps[0]


class Alternating:
    """Allows 40 and 41 by turns; breaks down after a number of tokens."""

    def __init__(self, max_tokens: int) -> None:
        self.seen: list[int] = []
        self.max_tokens = max_tokens

    def allowed(self) -> torch.Tensor:
        if len(self.seen) == self.max_tokens:
            raise InputError("the grammar is too complex")
        return torch.arange(320) == 40 + len(self.seen) % 2

    def advance(self, token_id: int) -> None:
        self.seen.append(token_id)


def test_each_of_n_answers_follows_a_constraint_of_its_own(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, (), SchedulerLimits(max_draft_tokens=4))
    inputs = conversation(tiny.config, "text", 9, seed=0)
    sampling = Sampling(max_tokens=20, temperature=1.0, seed=0, n=2)
    tokens = list(engine.submit(Request(inputs, sampling, constrain=lambda: Alternating(1000))))
    assert by_choice(tokens, 2) == [[40, 41] * 10] * 2


def test_a_constraint_that_fails_ends_its_own_request_alone(tiny: LoadedModel, engine: Engine) -> None:
    inputs = conversation(tiny.config, "text", 9, seed=0)
    constrained = engine.submit(Request(inputs, Sampling(max_tokens=9), constrain=lambda: Alternating(3)))
    free = engine.submit(Request(inputs, Sampling(max_tokens=9)))
    with pytest.raises(InputError, match="too complex"):
        list(constrained)
    assert len(list(free)) == 9


def test_log_probabilities_are_the_models_own(tiny: LoadedModel, engine: Engine) -> None:
    inputs = conversation(tiny.config, "text", 9, seed=0)
    sampling = Sampling(max_tokens=1, logprobs=3, logit_bias={7: 100.0})
    (token,) = engine.submit(Request(inputs, sampling))
    (logits,) = score(tiny.model, [inputs])
    expected = torch.log_softmax(logits[-1], dim=-1)
    assert token.token_id == 7
    assert token.log_probabilities is not None
    assert token.log_probabilities.chosen == pytest.approx(float(expected[7]), abs=1e-4)
    assert [token_id for token_id, _ in token.log_probabilities.best] == expected.topk(3).indices.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [2, 33, 90])
def test_a_prompt_that_is_scored_in_chunks_has_the_log_probabilities_of_a_whole_pass(
    tiny: LoadedModel, mode: str, length: int
) -> None:
    """Twice, so that the prompt is cached the second time, and beside a row that goes on meanwhile."""
    inputs = conversation(tiny.config, mode, length, seed=2)
    (logits,) = score(tiny.model, [inputs])
    expected = torch.log_softmax(logits[:-1], dim=-1)
    engine = Engine(tiny.model, (), SchedulerLimits(max_step_tokens=16, max_rows=4, block_tokens=4))
    other = engine.submit(Request(ModelInputs((41,) * 5), Sampling(max_tokens=40)))
    for _ in range(2):
        handle = engine.submit(Request(inputs, Sampling(max_tokens=3, n=2), prompt_logprobs=2))
        tokens = list(handle)
        assert by_choice(tokens, 2) == [answer(engine, inputs, 3)] * 2
        first, *found = handle.prompt_log_probabilities
        assert first is None
        assert handle.cached_tokens == 0
        scores = [one for one in found if one is not None]
        wanted = expected.gather(1, torch.tensor(inputs.token_ids[1:])[:, None])[:, 0]
        assert [one.chosen for one in scores] == pytest.approx(wanted.tolist(), abs=1e-4)
        best = torch.tensor([[value for _, value in one.best] for one in scores])
        torch.testing.assert_close(best, expected.topk(2).values, atol=1e-4, rtol=0)
    assert len(list(other)) == 40


@pytest.mark.parametrize("scored_from", [1, 41, 59, 60, 99])
def test_what_comes_before_the_scored_tokens_is_taken_from_the_cache(tiny: LoadedModel, scored_from: int) -> None:
    """The scores are the same bits as those of a prompt that is read whole, with the native kernels."""
    inputs = conversation(tiny.config, "text", 60, seed=2)
    engine = Engine(tiny.model, (), SchedulerLimits(block_tokens=4))
    whole, part = (
        engine.submit(Request(inputs, Sampling(max_tokens=1), prompt_logprobs=2, scored_from=start))
        for start in (1, scored_from)
    )
    assert [token.token_id for token in whole] == [token.token_id for token in part]
    found, unscored = part.prompt_log_probabilities, min(scored_from, 60)
    assert found[:unscored] == [None] * unscored
    assert part.cached_tokens == (min(scored_from - 1, 59) // 4) * 4
    if LEVELS:
        assert found[unscored:] == whole.prompt_log_probabilities[unscored:]
    chosen = [[one.chosen for one in scores if one] for scores in (found, whole.prompt_log_probabilities[unscored:])]
    assert chosen[0] == pytest.approx(chosen[1], abs=1e-4)


def test_a_scored_prompt_that_is_preempted_misses_no_place_and_repeats_none(tiny: LoadedModel) -> None:
    limits = SchedulerLimits(max_step_tokens=8, max_rows=4, block_tokens=4)
    engine = Engine(tiny.model, (), limits, cache_tokens=80)
    scored = conversation(tiny.config, "text", 60, seed=0)
    (logits,) = score(tiny.model, [scored])
    wanted = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(scored.token_ids[1:])[:, None])[:, 0]
    urgent: list[Handle] = []

    def interrupt(*_: object) -> None:
        if len(handle.prompt_log_probabilities) > 20 and not urgent:
            urgent.append(engine.submit(Request(ModelInputs((41,) * 40), Sampling(max_tokens=4), priority=1)))

    hook = tiny.model.register_forward_pre_hook(interrupt)
    handle = engine.submit(Request(scored, Sampling(max_tokens=2), prompt_logprobs=0))
    assert len(list(handle)) == 2
    hook.remove()
    assert len(list(urgent[0])) == 4
    assert engine.counts.preempted == 1
    found = [one.chosen for one in handle.prompt_log_probabilities if one is not None]
    assert found == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_frequent_token_is_left_alone_when_it_is_penalised(tiny: LoadedModel, engine: Engine) -> None:
    inputs = conversation(tiny.config, "text", 9, seed=0)
    liked = Sampling(max_tokens=6, logit_bias={7: 100.0}, frequency_penalty=2.0)
    assert [token.token_id for token in engine.submit(Request(inputs, liked))] == [7] * 6
    worn_out = Sampling(max_tokens=6, logit_bias={7: 3.0}, frequency_penalty=2.0, presence_penalty=2.0)
    assert [token.token_id for token in engine.submit(Request(inputs, worn_out))].count(7) < 4


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (Request(ModelInputs(()), Sampling()), InputError, "empty"),
        (Request(ModelInputs((320,)), Sampling()), InputError, "outside the vocabulary"),
        (Request(ModelInputs((1,)), Sampling(logit_bias={320: 1.0})), InputError, "outside the vocabulary"),
        (Request(ModelInputs((40,) * 131_073), Sampling()), CapacityError, "more than the context of 131072"),
    ],
)
def test_an_impossible_request_is_refused_when_it_is_submitted(
    engine: Engine, request_: Request, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        engine.submit(request_)


def test_a_prompt_larger_than_the_cache_is_refused_and_one_that_outgrows_it_ends_alone(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, (), cache_tokens=64)
    with pytest.raises(CapacityError, match="65 tokens, but the whole cache holds 64"):
        engine.submit(Request(ModelInputs((40,) * 65), Sampling()))
    growing = engine.submit(Request(ModelInputs((40,) * 60), Sampling(max_tokens=20)))
    other = engine.submit(Request(ModelInputs((41,) * 5), Sampling(max_tokens=10)))
    assert len(list(other)) == 10
    with pytest.raises(CapacityError, match="65 tokens"):
        list(growing)
    assert engine.cache_use == 0


def test_a_medium_that_cannot_be_encoded_ends_its_own_request_alone(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    picture = conversation(tiny.config, "vision", 10, seed=0)
    broken = Medium("vision", "no picture", 2, 3, "broken")
    with_broken = ModelInputs((40, 40, *[200] * 3, 41), (broken,))
    requests = [Request(inputs, Sampling(max_tokens=5)) for inputs in (picture, with_broken, picture)]
    handles = [engine.submit(request) for request in requests]
    with pytest.raises(AttributeError):
        list(handles[1])
    assert [len(list(handles[place])) for place in (0, 2)] == [5, 5]
    assert engine.cache_use == 0


def test_scores_that_are_no_numbers_end_their_own_request_alone(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    picture = conversation(tiny.config, "vision", 10, seed=0)
    (medium,) = picture.media
    damaged = replace(medium, data=replace(medium.data, crops=medium.data.crops * torch.nan), digest="damaged")
    handles = [
        engine.submit(Request(inputs, Sampling(max_tokens=5)))
        for inputs in (picture, ModelInputs(picture.token_ids, (damaged,)), picture)
    ]
    with pytest.raises(CheckpointError, match="not finite"):
        list(handles[1])
    assert [len(list(handles[place])) for place in (0, 2)] == [5, 5]


def test_a_model_that_fails_ends_the_requests_of_that_step_and_the_engine_goes_on(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    inputs = conversation(tiny.config, "text", 10, seed=0)
    expected = answer(engine, inputs)
    hook = tiny.model.register_forward_pre_hook(_explode)
    handle = engine.submit(Request(inputs, Sampling()))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(handle)
    hook.remove()
    assert answer(engine, inputs) == expected


def _explode(*_: object) -> None:
    raise RuntimeError("out of memory")


def test_a_fault_of_the_engine_itself_ends_all_requests_and_the_engine_goes_on(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny.model, ())
    inputs = conversation(tiny.config, "text", 10, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr("phi4.engine.engine.choose_tokens", _explode)
        with pytest.raises(RuntimeError, match="out of memory"):
            list(engine.submit(Request(inputs, Sampling())))
    assert len(answer(engine, inputs)) == 8


def test_a_cancelled_request_ends_early_and_frees_its_blocks(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    handle = engine.submit(Request(conversation(tiny.config, "text", 10, seed=0), Sampling(max_tokens=100_000, n=2)))
    tokens = iter(handle)
    next(tokens)
    handle.cancel()
    assert len(list(tokens)) < 99_000
    engine.close()
    assert engine.cache_use == 0


@pytest.mark.parametrize("cancelled", [0, 1])
def test_one_of_n_answers_is_cancelled_and_the_others_go_on(tiny: LoadedModel, cancelled: int) -> None:
    engine = Engine(tiny.model, ())
    inputs = conversation(tiny.config, "text", 40, seed=0)
    sampling = Sampling(max_tokens=400, temperature=1.0, seed=4, n=2)
    expected = by_choice(list(engine.submit(Request(inputs, sampling))), 2)
    handle = engine.submit(Request(inputs, sampling))
    tokens = []
    for token in handle:
        if not tokens:
            handle.cancel(cancelled)
        tokens.append(token)
    answers = by_choice(tokens, 2)
    assert answers[1 - cancelled] == expected[1 - cancelled]
    assert answers[cancelled] == expected[cancelled][: len(answers[cancelled])]
    assert len(answers[cancelled]) < 400
    assert not handle.is_cancelled


def test_a_request_has_ended_when_all_of_its_answers_are_cancelled(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    handle = engine.submit(
        Request(conversation(tiny.config, "text", 10, seed=0), Sampling(max_tokens=100_000, n=2, seed=1))
    )
    tokens = iter(handle)
    next(tokens)
    for choice in range(2):
        handle.cancel(choice)
    assert len(list(tokens)) < 99_000
    engine.close()
    assert engine.cache_use == 0


def test_tokens_come_with_async_for_from_many_requests_at_once(tiny: LoadedModel, engine: Engine) -> None:
    conversations = [conversation(tiny.config, mode, 12, seed=6) for mode in MODES]

    async def read(inputs: ModelInputs) -> list[int]:
        handle = engine.submit(Request(inputs, Sampling(max_tokens=8)))
        return [token.token_id async for token in handle]

    async def read_all() -> list[list[int]]:
        return await asyncio.gather(*map(read, conversations))

    assert asyncio.run(read_all()) == [answer(engine, inputs) for inputs in conversations]


def test_generate_answers_all_and_one_that_fails_ends_the_others(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    conversations = [conversation(tiny.config, mode, 12, seed=6) for mode in MODES]
    requests = [Request(inputs, Sampling(max_tokens=8)) for inputs in conversations]
    tokens: list[list[int]] = [[] for _ in requests]
    for index, token in engine.generate(requests):
        tokens[index].append(token.token_id)
    assert tokens == [answer(engine, inputs) for inputs in conversations]
    broken = Request(ModelInputs((200,) * 3, (Medium("vision", None, 0, 3, "broken"),)), Sampling())
    endless = Request(conversations[0], Sampling(max_tokens=100_000))
    with pytest.raises(AttributeError):
        list(engine.generate([endless, broken]))


def test_a_closed_engine_ends_its_requests_and_takes_no_others(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, ())
    inputs = conversation(tiny.config, "text", 10, seed=0)
    handle = engine.submit(Request(inputs, Sampling(max_tokens=100_000)))
    engine.close()
    with pytest.raises(ClosedError, match="closed before"):
        list(handle)
    with pytest.raises(ClosedError, match="takes no more requests"):
        engine.submit(Request(inputs, Sampling()))


def test_an_idle_engine_has_no_thread(engine: Engine, tiny: LoadedModel) -> None:
    answer(engine, conversation(tiny.config, "text", 10, seed=0))
    for thread in threading.enumerate():
        if thread.name == "phi4-engine":
            thread.join(timeout=10)
    assert not [thread for thread in threading.enumerate() if thread.name == "phi4-engine"]


def test_a_thread_that_cannot_be_started_harms_one_request_only(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    engine = Engine(tiny.model, (), cache_tokens=64)
    request = Request(ModelInputs((1, 2)), Sampling(max_tokens=2))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            engine.submit(request)
    assert engine.num_waiting == 0
    assert len(list(engine.submit(request))) == 2
    engine.close()
