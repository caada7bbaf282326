"""Choosing tokens: what each setting keeps, and that a seed repeats."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phi4.engine.sampling import Sampling, adjust_logits, filter_logits, penalise, sample
from phi4.errors import InputError

SCORES = torch.tensor([0.1, 3.0, -1.0, 2.0, 2.5])

logits = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=50).map(torch.tensor)


def kept(scores: torch.Tensor, sampling: Sampling) -> set[int]:
    return {int(index) for index in torch.nonzero(filter_logits(scores, sampling) > -math.inf)}


def test_greedy_takes_the_best_token() -> None:
    assert sample(SCORES, Sampling(), torch.Generator()) == 1


def test_top_k_keeps_the_k_best() -> None:
    assert kept(SCORES, Sampling(top_k=2)) == {1, 4}


def test_top_k_keeps_k_tokens_among_equals() -> None:
    assert len(kept(torch.tensor([1.0, 1.0, 0.0]), Sampling(top_k=1))) == 1


@given(st.floats(1e-4, 100.0), st.floats(0.01, 100.0))
def test_every_allowed_setting_draws_a_token(temperature: float, penalty: float) -> None:
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, seed=0)
    assert (
        0
        <= sample(adjust_logits(torch.tensor([50.0, -50.0, 3.0]), sampling, [0, 1], {}), sampling, sampling.generator())
        < 3
    )


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert kept(probabilities, Sampling(top_p=0.79)) == {0, 1}
    assert kept(probabilities, Sampling(top_p=0.81)) == {0, 1, 2}


def test_min_p_is_relative_to_the_best_token() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert kept(probabilities, Sampling(min_p=0.5)) == {0, 1}


def test_the_repetition_penalty_lowers_tokens_that_occurred_and_no_others() -> None:
    lowered = penalise(SCORES, [1, 2, 2], 2.0)
    assert lowered.tolist() == pytest.approx([0.1, 1.5, -2.0, 2.0, 2.5])


def test_a_bias_counts_once_and_penalties_for_each_occurrence_in_the_answer() -> None:
    sampling = Sampling(logit_bias={0: 5.0}, presence_penalty=0.5, frequency_penalty=0.25)
    adjusted = adjust_logits(SCORES, sampling, seen=[1, 2, 3], counts={1: 1, 3: 2})
    assert adjusted.tolist() == pytest.approx([5.1, 2.25, -1.0, 1.0, 2.5])
    assert SCORES[1] == 3.0


@given(logits, st.integers(1, 60), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_a_best_token_survives_every_filter(scores: torch.Tensor, k: int, p: float, m: float) -> None:
    best = max(float(scores[index]) for index in kept(scores, Sampling(top_k=k, top_p=p, min_p=m)))
    assert best == float(scores.max())


@given(logits, st.integers(0, 2**63 - 1))
def test_the_same_seed_draws_the_same_tokens(scores: torch.Tensor, seed: int) -> None:
    sampling = Sampling(temperature=1.0, seed=seed)
    first, second = sampling.generator(), sampling.generator()
    for _ in range(5):
        assert sample(scores, sampling, first) == sample(scores, sampling, second)


def test_sampling_follows_the_probabilities() -> None:
    sampling = Sampling(temperature=1.0, seed=0)
    generator = sampling.generator()
    scores = torch.tensor([0.7, 0.2, 0.1]).log()
    draws = torch.tensor([sample(scores, sampling, generator) for _ in range(4000)])
    frequencies = torch.bincount(draws, minlength=3) / 4000
    torch.testing.assert_close(frequencies, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "setting",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": 1e-300},
        {"temperature": math.inf},
        {"temperature": 101.0},
        {"stop_token_ids": (3, -5)},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 5e-324},
        {"top_p": 1.5},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e30},
        {"seed": -1},
        {"n": 0},
        {"logprobs": 21},
        {"logit_bias": {3: 101.0}},
        {"logit_bias": {3: math.nan}},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -math.inf},
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(InputError, match=name):
        Sampling(**setting)
