from dataclasses import replace

import pytest

from phi4.errors import ConfigError
from phi4.train.stage import Answers, Source
from train.stages import align


def test_the_rate_rises_linearly_and_falls_to_zero_behind_the_last_step() -> None:
    stage = replace(align(), steps=10, warmup_steps=4, learning_rate=1.0)
    rates = [stage.learning_rate_at(step) for step in range(11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0])


def test_without_warm_up_the_first_step_has_the_highest_rate() -> None:
    stage = replace(align(), steps=4, warmup_steps=0, learning_rate=1.0)
    assert [stage.learning_rate_at(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trains": ()}, "trains nothing"),
        ({"trains": ("language", "vision.encoder")}, "the language model trains alone"),
        ({"sources": ()}, "different data sets"),
        ({"sources": (Source("a"), Source("a", 2))}, "different data sets"),
        ({"steps": 0}, "steps is 0"),
        ({"rows_per_step": 0}, "rows_per_step is 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"valid_records": -1}, "valid_records is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_an_impossible_stage_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(align(), **changes)


def test_an_option_that_is_not_used_leaves_the_digest_of_a_recipe() -> None:
    assert (repr(Answers()), repr(Answers(spelled=True))) == ("Answers()", "Answers(spelled=True)")
