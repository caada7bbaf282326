import math
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch

from kernels.conftest import not_aligned
from phi4.kernels.instructions import LEVELS
from phi4.kernels.scores import best_in_torch, best_scores

Found = tuple[list[int], list[bool]]
Find = Callable[[torch.Tensor], Found]
WAYS = [pytest.param(best_in_torch, id="torch")]
WAYS += [pytest.param(partial(best_scores, level=level), id=level) for level in LEVELS]
every_way = pytest.mark.parametrize("find", WAYS)

# Less than a vector of any level, whole ones, and whole ones with an ending.
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 100, 129]


def first_highest(scores: torch.Tensor) -> Found:
    """The reference: Python's own comparisons."""
    rows = scores.tolist()
    return [row.index(max(row)) for row in rows], [all(map(math.isfinite, row)) for row in rows]


def rows_apart(scores: torch.Tensor) -> torch.Tensor:
    """The same rows, with something higher and something infinite between them."""
    between = torch.tensor([1e9, math.inf, math.nan]).expand(scores.shape[0], 3)
    return torch.cat((scores, between), dim=1)[:, : scores.shape[1]]


@every_way
def test_the_first_highest_score_is_found(find: Find) -> None:
    torch.manual_seed(0)
    for width in WIDTHS:
        for scores in (torch.randn(5, width), -1e30 * torch.rand(5, width)):
            assert find(scores) == find(rows_apart(scores)) == first_highest(scores)
        for place in range(width):
            scores = torch.full((1, width), -3.4e38)
            scores[0, place] = -3.3e38
            assert find(scores) == ([place], [True])


@every_way
def test_the_first_of_equal_scores_is_found(find: Find) -> None:
    torch.manual_seed(0)
    for width in WIDTHS:
        few = torch.randint(-2, 1, (50, width)).float()
        zeros = torch.where(torch.rand(50, width) < 0.5, 0.0, -0.0)  # equal, whatever their signs
        for scores in (few, zeros, torch.where(few == 0, zeros, few)):
            assert find(scores) == find(rows_apart(scores)) == first_highest(scores)


@every_way
@pytest.mark.parametrize("number", [math.nan, -math.nan, math.inf, -math.inf])
def test_one_score_that_is_not_finite_is_noticed_in_its_row_alone(find: Find, number: float) -> None:
    torch.manual_seed(0)
    for width in WIDTHS:
        for place in range(width):
            scores = torch.randn(3, width)
            expected, _ = first_highest(scores)
            scores[1, place] = number
            places, finite = find(scores)
            assert finite == [True, False, True]
            assert places[::2] == expected[::2]
            assert 0 <= places[1] < width


@every_way
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_rows_without_any_finite_score_give_one_of_their_places(find: Find, number: float) -> None:
    for width in WIDTHS:
        (place,), finite = find(torch.full((1, width), number))
        assert finite == [False]
        assert 0 <= place < width


@every_way
def test_the_largest_finite_scores_are_finite(find: Find) -> None:
    largest = torch.finfo(torch.float32).max
    assert find(torch.tensor([[-largest, largest, 1e-45, largest]])) == ([1], [True])


@every_way
def test_every_place_of_a_vocabulary_can_be_the_best(find: Find) -> None:
    width = 200_064
    scores = torch.randn(4, width, generator=torch.Generator().manual_seed(1))
    random.seed(1)
    expected = [0, width - 1, *random.sample(range(width), 2)]
    for row, place in enumerate(expected):
        scores[row, place:] = scores[row, place:].clamp_max(8.9)
        scores[row, place] = 9.0
    assert find(scores) == (expected, [True] * 4)


@every_way
def test_of_narrow_scores_the_same_is_found_as_of_wide_ones(find: Find) -> None:
    torch.manual_seed(0)
    for width in WIDTHS:
        narrow = torch.randn(5, width).bfloat16()  # with few digits, many are equal
        narrow[1, width // 2], narrow[3, -1] = math.inf, math.nan
        found, (places, finite) = find(narrow), first_highest(narrow)
        assert found[1] == finite
        assert [found[0][row] for row in (0, 2, 4)] == [places[row] for row in (0, 2, 4)]


@every_way
def test_rows_may_be_none(find: Find) -> None:
    assert find(torch.empty(0, 4)) == ([], [])


@every_way
def test_one_row_may_stand_for_many(find: Find) -> None:
    assert find(torch.tensor([[1.0, 3.0, 2.0]]).expand(3, 3)) == ([1] * 3, [True] * 3)


def test_scores_of_another_shape_or_type_are_refused() -> None:
    scores = torch.ones(2, 4)
    for wrong in (scores[0], scores[None], scores[:, :0], scores.int()):
        with pytest.raises(ValueError, match="no kernel compares"):
            best_scores(wrong)


@pytest.mark.parametrize("level", LEVELS)
def test_kernels_refuse_what_plain_torch_takes(level: str) -> None:
    scores = not_aligned(8).view(2, 4)
    for wrong in (scores, torch.ones(2, 8)[:, ::2], torch.ones(4, 2).T):
        assert best_scores(wrong) == ([0] * len(wrong), [True] * len(wrong))
        with pytest.raises(ValueError, match=f"no kernel of level {level} compares"):
            best_scores(wrong, level)
    with pytest.raises(ValueError, match="on meta"):
        best_scores(torch.ones(2, 4, device="meta"), level)


@pytest.mark.parametrize("level", LEVELS)
def test_where_gradients_are_kept_plain_torch_serves(level: str) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        scores = torch.tensor([[1.0, 2.0]], requires_grad=True)
        assert best_scores(scores) == ([1], [True])
        with pytest.raises(ValueError, match="gradients are kept"):
            best_scores(scores, level)


def test_a_level_that_the_processor_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="level"):
        best_scores(torch.ones(1, 2), "none")
