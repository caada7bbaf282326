"""The pool of blocks: counts always add up, content is found again as long as it is there, neighbours stay together."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from phi4.engine.block_pool import BlockPool


class PoolMachine(RuleBasedStateMachine):
    """Rows that come, grow, share and go at random."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.rows: list[list[int]] = []
        self.content: dict[bytes, int] = {}
        self.num_keys = 0

    @rule(count=st.integers(1, 5))
    def allocate(self, count: int) -> None:
        if count > self.pool.num_available:
            with pytest.raises(ValueError, match="available"):
                self.pool.allocate(count)
            return
        held = {block for row in self.rows for block in row}
        blocks = self.pool.allocate(count)
        assert len(set(blocks)) == count
        assert not held & set(blocks)
        self.content = {key: block for key, block in self.content.items() if block not in blocks}
        self.rows.append(blocks)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        block = data.draw(st.sampled_from(row))
        key = data.draw(st.sampled_from([*self.content, None])) or str(self.num_keys).encode()
        self.num_keys += 1
        self.pool.register(block, key)
        if key not in self.content and block not in self.content.values():
            self.content[key] = block

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.pool.release(self.rows.pop(data.draw(st.integers(0, len(self.rows) - 1))))

    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from([*self.content, b"unknown"]), max_size=4, unique=True))
        known, unreferenced = self.pool.count_known(keys)
        before = self.pool.num_available
        blocks = self.pool.share(keys)
        assert (known, unreferenced) == (len(blocks), before - self.pool.num_available)
        # A block may have been forgotten, but never holds anything else than what its key says.
        assert all(self.content[key] == block for key, block in zip(keys, blocks, strict=False))
        if blocks:
            self.rows.append(blocks)

    @invariant()
    def references_add_up(self) -> None:
        held = Counter(block for row in self.rows for block in row)
        assert all(self.pool.references(block) == held[block] for block in range(12))
        assert self.pool.num_available == 12 - len(held)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_counts_add_up_whatever_rows_do = PoolMachine.TestCase


def test_released_content_is_found_again_and_forgotten_oldest_first() -> None:
    pool = BlockPool(20)
    for name in (b"old", b"new"):
        blocks = pool.allocate(10)
        for number, block in enumerate(blocks):
            pool.register(block, name + bytes([number]))
        pool.release(blocks)
    pool.allocate(8)
    assert pool.count_known([b"old" + bytes([number]) for number in range(10)]) == (2, 2)
    assert pool.count_known([b"new" + bytes([number]) for number in range(10)]) == (10, 10)


def test_sharing_makes_content_young_again() -> None:
    pool = BlockPool(16)
    for name in (b"a", b"b"):
        blocks = pool.allocate(8)
        for number, block in enumerate(blocks):
            pool.register(block, name + bytes([number]))
        pool.release(blocks)
    pool.release(pool.share([b"a" + bytes([number]) for number in range(8)]))
    pool.allocate(8)
    assert pool.count_known([b"a\0"]) == (1, 1)
    assert pool.count_known([b"b\0"]) == (0, 0)


def test_rows_that_grow_by_turns_stay_in_one_piece() -> None:
    """The cache hands out views of neighbouring blocks without a copy."""
    pool = BlockPool(64)
    rows = [pool.allocate(2) for _ in range(4)]
    for _ in range(4):
        for row in rows:
            row += pool.allocate(1, after=row[-1])
    assert all(later == earlier + 1 for row in rows for earlier, later in pairwise(row))


def test_content_that_two_rows_computed_is_known_once() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(1), pool.allocate(1)
    pool.register(first[0], b"same")
    pool.register(second[0], b"same")
    pool.release(second)
    assert pool.num_remembered == 0
    pool.release(first)
    assert pool.num_remembered == 1
