"""Media pass an encoder together within a bound, and each of them once."""

from hypothesis import given
from hypothesis import strategies as st

from phi4.model.encoder_batches import split_batches


@given(st.lists(st.integers(1, 50)), st.integers(1, 60))
def test_every_medium_is_in_one_batch_and_no_batch_is_larger_than_its_bound(sizes: list[int], bound: int) -> None:
    batches = split_batches(sizes, bound)
    assert sorted(place for batch in batches for place in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[place] for place in batch) <= bound


def test_small_media_are_together_and_large_ones_alone() -> None:
    assert split_batches([9, 2, 40, 3, 2], 12) == [[1, 4, 3], [0], [2]]
