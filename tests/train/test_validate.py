from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.samples import record
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.inputs import ModelInputs
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.objectives import AnswerLoss, Loss
from phi4.train.validate import BATCH_EXAMPLES, cut_batches, validate
from train.conftest import Setting
from train.toys import colours

TOKENS_PER_ROW = 40


class Watched(AnswerLoss):
    """Notes how many tokens each pass has."""

    def __init__(self) -> None:
        super().__init__(recompute=False)
        self.passes: list[int] = []

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        self.passes.append(sum(len(example.inputs.token_ids) for example in examples))
        return super().forward(model, examples)


@given(st.lists(st.integers(1, TOKENS_PER_ROW + 20), max_size=60))
def test_no_pass_is_longer_than_a_row_unless_one_example_is(lengths: list[int]) -> None:
    examples = [Example(ModelInputs((0,) * length), (), (), record(str(n))) for n, length in enumerate(lengths)]
    batches = list(cut_batches(examples, TOKENS_PER_ROW))
    assert [example for batch in batches for example in batch] == examples
    for batch in batches:
        assert 1 <= len(batch) <= BATCH_EXAMPLES
        assert len(batch) == 1 or sum(len(example.inputs.token_ids) for example in batch) <= TOKENS_PER_ROW


def test_means_do_not_depend_on_the_length_of_a_pass(setting: Setting, encode: Callable[[Record], Example]) -> None:
    model = setting.load().model
    assert isinstance(model, Phi4Multimodal)
    model.float()
    valid = {"colours": [encode(one) for one in colours(5, "valid")], "none": []}
    scores = []
    for tokens_per_row in (1, 100_000):
        objective = Watched()
        (score,) = validate(model, {"colours": objective}, valid, tokens_per_row).values()
        assert len(objective.passes) == (5 if tokens_per_row == 1 else 1)
        scores.append(score)
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-5)
    assert scores[0].accuracy == scores[1].accuracy
    assert not model.training
