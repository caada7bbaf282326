"""Choosing for all rows of a step: one error each, and guesses that change no token."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.engine.sampler import Choice, Question, Sampler, choose_tokens
from phi4.engine.sampling import Sampling
from phi4.errors import CheckpointError

VOCABULARY = 6


def token_ids(choices: list[Choice] | Exception) -> list[int]:
    assert isinstance(choices, list)
    return [choice.token_id for choice in choices]


@settings(deadline=None)
@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=4), st.integers(0, 99), st.sampled_from([0.0, 1.0]))
def test_guesses_give_the_tokens_and_leave_the_state_of_choosing_one_by_one(
    drafts: list[int], seed: int, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, seed=seed, frequency_penalty=1.0, repetition_penalty=1.1)
    logits = torch.randn(len(drafts) + 1, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    guessing, patient = (Sampler(sampling, [1, 2], end_token_ids=frozenset({3})) for _ in range(2))
    (found,) = choose_tokens([Question(guessing, tuple(drafts), len(drafts) + 1)], logits)
    expected: list[int] = []
    for scores in logits:
        (one,) = choose_tokens([Question(patient, (), 1)], scores[None])
        expected += token_ids(one)
        if expected[-1] == 3 or expected != drafts[: len(expected)]:
            break
    assert token_ids(found) == expected
    assert torch.equal(guessing.generator.get_state(), patient.generator.get_state())
    assert guessing.counts == patient.counts


def test_a_row_with_scores_that_are_no_numbers_gets_an_error_and_the_others_a_token() -> None:
    logits = torch.zeros(3, VOCABULARY)
    logits[0, 2] = logits[2, 4] = 1.0
    logits[1, 0] = math.nan
    questions = [Question(Sampler(Sampling(), []), (), 1) for _ in range(3)]
    first, broken, last = choose_tokens(questions, logits)
    assert (token_ids(first), token_ids(last)) == ([2], [4])
    assert isinstance(broken, CheckpointError)


def test_rows_that_ask_nothing_get_nothing() -> None:
    asking, silent = Question(Sampler(Sampling(), []), (), 1), Question(Sampler(Sampling(), []), (), 0)
    assert [token_ids(one) for one in choose_tokens([silent, asking, silent], torch.eye(6)[4:5])] == [[], [4], []]
    assert choose_tokens([silent], torch.empty(0, VOCABULARY)) == [[]]


def test_every_answer_has_a_stream_of_its_own() -> None:
    logits = torch.zeros(8, 1000)
    sampling = Sampling(temperature=1.0, seed=3)
    samplers = [Sampler(sampling, [], choice=choice) for choice in (0, 1, 2, 0)]
    draws = [[sampler.choose(scores, 0).token_id for scores in logits] for sampler in samplers]
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3
