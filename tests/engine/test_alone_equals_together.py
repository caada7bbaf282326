"""The engine's first promise: an answer does not depend on who shares the engine, when, or in what pieces."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from conversations import MODES, conversation
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.config import ModelConfig
from phi4.engine.engine import Engine
from phi4.engine.handle import Handle
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import GeneratedToken, Request
from phi4.engine.sampler import LogProbabilities
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.inputs import ModelInputs
from phi4.kernels.instructions import NATIVE
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal

# The conversations below have 2 to 60 tokens: they cross this context in their prompts and in their answers.
ORIGINAL_CONTEXT = 40

Description = tuple[str, int, int]
Answerer = Callable[[Description, int], list[int]]


class Conducted:
    """A model that does something else before certain steps: requests come and go at the same place every time."""

    def __init__(self, model: Phi4Multimodal) -> None:
        self.model = model
        self.step_number = 0
        self.actions: dict[int, list[Callable[[], None]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, embeddings: torch.Tensor, step: Any, native: Any) -> torch.Tensor:
        for action in self.actions.pop(self.step_number, []):
            action()
        self.step_number += 1
        return self.model(embeddings, step, native)


def with_short_context(config: ModelConfig) -> ModelConfig:
    return replace(config, decoder=replace(config.decoder, original_max_position_embeddings=ORIGINAL_CONTEXT))


@pytest.fixture(scope="module")
def short(tiny: LoadedModel) -> Phi4Multimodal:
    """The tiny model with an original context of 40 tokens."""
    model = Phi4Multimodal(with_short_context(tiny.config)).eval()
    model.load_state_dict(tiny.model.state_dict())
    return model


@pytest.fixture(scope="module")
def alone(short: Phi4Multimodal) -> Answerer:
    """Greedy tokens of one conversation without cache, engine or company; of text, by the bare base model."""
    bare = Phi4Mini(short.decoder_config)
    state = short.language.state_dict()
    bare.load_state_dict({name: state[name] for name in bare.state_dict()})

    @cache
    def answer(description: Description, max_tokens: int) -> list[int]:
        inputs = conversation(short.config, *description)
        token_ids = list(inputs.token_ids)
        for _ in range(max_tokens):
            so_far = ModelInputs(tuple(token_ids), inputs.media)
            (logits,) = score(bare if description[0] == "text" else short, [so_far])
            token_ids.append(int(logits[-1].argmax()))
        return token_ids[len(inputs.token_ids) :]

    return answer


descriptions = st.tuples(st.sampled_from(MODES), st.integers(2, 24), st.integers(0, 1))
arrivals = st.tuples(descriptions, st.integers(1, 10), st.integers(0, 20), st.integers(0, 1))
limits = st.builds(
    SchedulerLimits,
    max_step_tokens=st.integers(5, 60),
    max_rows=st.integers(1, 5),
    block_tokens=st.sampled_from([1, 4, 7]),
    reuse_prefixes=st.booleans(),
    long_ahead=st.sampled_from([0.0, 1 / 7, 0.5]),
    max_draft_tokens=st.sampled_from([0, 3]),
)
# The first row: its answer takes longer than the last arrival.
FIRST, FIRST_TOKENS = ("text", 12, 0), 32


@settings(max_examples=80, deadline=None)
@given(
    st.lists(arrivals, max_size=6),
    limits,
    st.integers(0, 80),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), max_size=2),
)
def test_every_row_of_a_mixture_gets_the_tokens_that_it_gets_alone(
    short: Phi4Multimodal,
    alone: Answerer,
    mixture: list[tuple[Description, int, int, int]],
    bounds: SchedulerLimits,
    spare_tokens: int,
    cancellations: list[tuple[int, int]],
) -> None:
    """Rows arrive at their steps and some are cancelled; the cache holds the longest of them and not much more."""
    model = Conducted(short)
    conversations = [conversation(short.config, *description) for description, _, _, _ in mixture]
    lengths = [len(inputs.token_ids) + row[1] for inputs, row in zip(conversations, mixture, strict=True)]
    longest = max([FIRST[1] + FIRST_TOKENS, *lengths])
    engine = Engine(model, (), bounds, cache_tokens=longest + bounds.block_tokens + spare_tokens)
    handles: dict[int, Handle] = {}

    def submit(place: int) -> None:
        _, max_tokens, _, priority = mixture[place]
        handles[place] = engine.submit(Request(conversations[place], Sampling(max_tokens=max_tokens), priority))

    def cancel(place: int) -> None:
        if place in handles:
            handles[place].cancel()

    for place, (_, _, step_number, _) in enumerate(mixture):
        model.actions.setdefault(step_number, []).append(partial(submit, place))
    for place, step_number in cancellations:
        model.actions.setdefault(step_number, []).append(partial(cancel, place))
    first = engine.submit(Request(conversation(short.config, *FIRST), Sampling(max_tokens=FIRST_TOKENS)))
    assert [token.token_id for token in first] == alone(FIRST, FIRST_TOKENS)
    for place, (description, max_tokens, _, _) in enumerate(mixture):
        tokens = [token.token_id for token in handles[place]]
        expected = alone(description, max_tokens)
        assert tokens == (expected[: len(tokens)] if handles[place].is_cancelled else expected)
    engine.close()
    assert engine.cache_use == 0
    for name, count in vars(engine.counts).items():
        event(f"{name}: {count > 0}")


@pytest.mark.parametrize("reuse_prefixes", [True, False])
@pytest.mark.parametrize("long_ahead", [0.0, 0.5])
@pytest.mark.parametrize("mode", MODES)
def test_a_row_crosses_the_original_context_in_its_prompt_and_in_its_answer(
    short: Phi4Multimodal, alone: Answerer, mode: str, long_ahead: float, reuse_prefixes: bool
) -> None:
    media_tokens = len(conversation(short.config, mode, 2, seed=1).token_ids) - 2
    lengths = [ORIGINAL_CONTEXT - media_tokens + offset for offset in (-8, -2, -1, 0, 1)]
    bounds = SchedulerLimits(32, max_rows=8, block_tokens=4, reuse_prefixes=reuse_prefixes, long_ahead=long_ahead)
    engine = Engine(short, (), bounds)
    inputs = [conversation(short.config, mode, length, seed=1) for length in lengths]
    for _ in range(2):  # the second time, everything is known already
        tokens: list[list[int]] = [[] for _ in lengths]
        for index, token in engine.generate([Request(one, Sampling(max_tokens=12)) for one in inputs]):
            tokens[index].append(token.token_id)
        assert tokens == [alone((mode, length, 1), 12) for length in lengths]
    assert engine.counts.switched == 8
    assert (engine.counts.reused_tokens > 0) == reuse_prefixes


def test_rows_that_preempt_each_other_get_the_tokens_that_they_get_alone(
    short: Phi4Multimodal, alone: Answerer
) -> None:
    descriptions = [(mode, 10, 2) for mode in MODES]
    inputs = [conversation(short.config, *description) for description in descriptions]
    engine = Engine(short, (), SchedulerLimits(block_tokens=4), cache_tokens=100)
    tokens: list[list[int]] = [[] for _ in inputs]
    for index, token in engine.generate([Request(one, Sampling(max_tokens=20)) for one in inputs]):
        tokens[index].append(token.token_id)
    assert tokens == [alone(description, 20) for description in descriptions]
    assert engine.counts.preempted > 0


def test_the_same_text_under_another_picture_is_not_reused(short: Phi4Multimodal) -> None:
    engine = Engine(short, (), SchedulerLimits(block_tokens=4))
    inputs = conversation(short.config, "vision", 30, seed=1)
    other = ModelInputs(inputs.token_ids, conversation(short.config, "vision", 30, seed=2).media)
    before_picture = inputs.media[0].start // 4 * 4
    for one, reused in ((inputs, 0), (other, before_picture), (inputs, len(inputs.token_ids) // 4 * 4)):
        before = engine.counts.reused_tokens
        list(engine.submit(Request(one, Sampling(max_tokens=2))))
        assert engine.counts.reused_tokens - before == reused


@pytest.fixture(scope="module", params=["fp32", "bf16", "4bit", "mixed"])
def model(
    request: pytest.FixtureRequest,
    short: Phi4Multimodal,
    tiny_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Phi4Multimodal:
    """The same model in a type, or quantised by a scheme; with `mixed`, its encoders and adapters have 8 bits."""
    config, state, dtype = short.config, short.state_dict(), torch.float32
    if request.param in SCHEMES:
        directory, modalities = tmp_path_factory.mktemp("quantised") / "tiny", request.param == "mixed"
        quantise(tiny_directory, directory, SCHEMES[request.param], encoders=modalities, adapters=modalities)
        loaded = load_model(directory)
        config, state = with_short_context(loaded.config), loaded.model.state_dict()
    if request.param != "fp32":
        dtype = torch.bfloat16
    model = Phi4Multimodal(config).eval()
    model.load_state_dict(state)
    return model.to(dtype)


# More than some machines have cores.
THREADS = (1, 3)


@pytest.fixture
def any_threads() -> Iterator[None]:
    """Threads that a test chooses are its own. An engine's thread takes as many as there are when it begins."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


Scored = list[tuple[int, LogProbabilities | None]]


def scored(tokens: Iterable[GeneratedToken]) -> Scored:
    """What is compared bit for bit."""
    return [(token.token_id, token.log_probabilities) for token in tokens]


def answer_together(engine: Engine, requests: Sequence[Request]) -> list[Scored]:
    tokens: list[list[GeneratedToken]] = [[] for _ in requests]
    for index, token in engine.generate(requests):
        tokens[index].append(token)
    return [scored(own) for own in tokens]


@pytest.mark.skipif(NATIVE is None, reason="the stock products round with the number of rows")
@pytest.mark.parametrize("cache_dtype", [None, torch.int8], ids=["auto", "int8"])
def test_with_native_kernels_company_chunks_and_threads_change_no_bit(
    any_threads: None, model: Phi4Multimodal, cache_dtype: torch.dtype | None
) -> None:
    def new_engine(step_tokens: int) -> Engine:
        bounds = SchedulerLimits(step_tokens, max_rows=9, block_tokens=4, reuse_prefixes=False)
        return Engine(model, (), bounds, cache_dtype=cache_dtype)

    inputs = [conversation(model.config, mode, length, seed=1) for mode in MODES for length in (3, 20, 45)]
    requests = [Request(one, Sampling(max_tokens=8, logprobs=0)) for one in inputs]
    # Each has an engine of its own: its media pass the encoders alone.
    alone = [scored(new_engine(13).submit(request)) for request in requests]
    assert [scored(new_engine(500).submit(request)) for request in requests] == alone
    for threads in THREADS:
        torch.set_num_threads(threads)
        assert answer_together(new_engine(13), requests) == alone


@pytest.mark.skipif(NATIVE is None, reason="the stock products round with the number of rows")
@pytest.mark.parametrize("cache_dtype", [None, torch.int8], ids=["auto", "int8"])
def test_a_cache_that_is_shared_taken_away_and_written_again_changes_no_bit(
    any_threads: None, model: Phi4Multimodal, cache_dtype: torch.dtype | None
) -> None:
    """Rows are preempted, cross the original context and find blocks of others; alone, nothing of that happens."""
    inputs = [conversation(model.config, mode, length, seed=1) for mode in MODES for length in (10, 45)]
    requests = [Request(one, Sampling(max_tokens=20, logprobs=0)) for one in (*inputs, *inputs)]
    roomy = Engine(model, (), SchedulerLimits(reuse_prefixes=False, long_ahead=0.0), cache_dtype=cache_dtype)
    alone = [scored(roomy.submit(request)) for request in requests]
    for threads in THREADS:
        torch.set_num_threads(threads)
        tight = Engine(model, (), SchedulerLimits(block_tokens=4), cache_tokens=150, cache_dtype=cache_dtype)
        assert answer_together(tight, requests) == alone
        counts = tight.counts
        assert min(counts.preempted, counts.switched, counts.reused_tokens) > 0
