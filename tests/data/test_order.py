"""The order: a function of k, every record once an epoch, data sets as their weights say."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.data.order import BLOCK_DRAWS, Draw, Order
from phi4.errors import DataError

SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 40), min_size=1, max_size=4)


def order(seed: int = 0, **sizes: int) -> Order:
    return Order(sizes, dict.fromkeys(sizes, 1.0), seed)


@given(SIZES, st.integers(0, 2**64 - 1), st.lists(st.integers(0, 3 * BLOCK_DRAWS), max_size=8))
def test_a_draw_depends_on_nothing_but_k(sizes: dict[str, int], seed: int, places: list[int]) -> None:
    weights = {name: 1.0 + number for number, name in enumerate(sizes)}
    one = Order(sizes, weights, seed)
    drawn = [one.draw(k) for k in places]
    other = Order(dict(reversed(sizes.items())), dict(reversed(weights.items())), seed)
    assert [other.draw(k) for k in reversed(places)] == drawn[::-1]
    assert [one.draw(k) for k in places] == drawn


@given(SIZES, st.integers(0, 100))
def test_every_record_comes_once_an_epoch(sizes: dict[str, int], seed: int) -> None:
    drawn = list(map(Order(sizes, dict.fromkeys(sizes, 1.0), seed).draw, range(300)))
    for name, size in sizes.items():
        own = [draw for draw in drawn if draw.dataset == name]
        assert [draw.epoch for draw in own] == [position // size for position in range(len(own))]
        for epoch in range(len(own) // size):
            assert sorted(draw.index for draw in own if draw.epoch == epoch) == list(range(size))


def test_records_keep_their_turn_across_blocks() -> None:
    many = order(first=3 * BLOCK_DRAWS, second=BLOCK_DRAWS)
    drawn = [many.draw(k) for k in range(BLOCK_DRAWS - 500, BLOCK_DRAWS + 500)]
    assert len({(draw.dataset, draw.epoch, draw.index) for draw in drawn}) == len(drawn)


def test_data_sets_come_as_their_weights_say() -> None:
    mixture = Order({"a": 10, "b": 1000, "c": 5}, {"a": 5, "b": 1.5, "c": 3.5}, seed=7)
    counts = Counter(mixture.draw(k).dataset for k in range(4000))
    # Four standard deviations of the rarest are 0.023.
    assert {name: counts[name] / 4000 for name in "abc"} == pytest.approx({"a": 0.5, "b": 0.15, "c": 0.35}, abs=0.03)


def test_epochs_seeds_and_data_sets_have_orders_of_their_own() -> None:
    def indices(drawn: Order, start: int = 0, dataset: str | None = None) -> list[int]:
        draws = [drawn.draw(k) for k in range(start, start + 50)]
        return [draw.index for draw in draws if dataset in (None, draw.dataset)]

    one, another = order(a=50), order(seed=1, a=50)
    assert indices(one) != indices(one, start=50)
    assert indices(one) != indices(another)
    assert indices(one) != indices(order(b=50))
    assert indices(one) != list(range(50))
    # A data set's own order does not depend on what it is mixed with.
    mixed = indices(order(a=50, b=50), dataset="a")
    assert mixed == indices(one)[: len(mixed)]


def test_the_order_never_changes() -> None:
    """Runs that were begun with it go on with it."""
    mixture = Order({"a": 3, "b": 1000}, {"a": 1.0, "b": 2.0}, seed=5)
    assert [mixture.draw(k) for k in (0, 1, 2, 3, 5000)] == [
        Draw("b", 0, 142),
        Draw("b", 0, 948),
        Draw("b", 0, 785),
        Draw("b", 0, 408),
        Draw("a", 556, 2),
    ]


@pytest.mark.parametrize(
    ("sizes", "weights", "seed", "said"),
    [
        ({}, {}, 0, r"the data sets are \[\], but weights are given for \[\]"),
        ({"a": 1}, {"b": 1.0}, 0, r"the data sets are \['a'\], but weights are given for \['b'\]"),
        ({"a": 0}, {"a": 1.0}, 0, "'a' has no records"),
        ({"a": 1}, {"a": 0.0}, 0, "weight of 'a' is 0.0"),
        ({"a": 1}, {"a": float("nan")}, 0, "weight of 'a' is nan"),
        ({"a": 1}, {"a": float("inf")}, 0, "weight of 'a' is inf"),
        ({"a": 1}, {"a": 1.0}, -1, "seed is -1"),
        ({"a": 1}, {"a": 1.0}, 2**64, "seed is 18446744073709551616"),
    ],
)
def test_an_impossible_mixture_is_refused(sizes: Any, weights: Any, seed: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Order(sizes, weights, seed)
