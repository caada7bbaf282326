"""The scheduler with a model of numbers: every row reads its own history, and gets what it would get alone."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.engine.block_pool import BlockPool
from phi4.engine.limits import SchedulerLimits
from phi4.engine.plan import Plan
from phi4.engine.row import Row
from phi4.engine.scheduler import Scheduler, share_budget
from phi4.errors import CapacityError, ConfigError
from phi4.inputs import Medium

ORIGINAL_CONTEXT = 24


def next_token(token_ids: list[int], rotary: str, adapter: str | None) -> int:
    """Stands for a model: depends on all that came before, and often goes on as the prompts of `rows` do."""
    mixed = sum((place + 1) * token_id for place, token_id in enumerate(token_ids)) + len(f"{rotary}{adapter}")
    return token_ids[-1] % 3 + 1 if mixed % 4 else mixed % 7


@dataclass
class Machine:
    """Runs plans on slots that remember what was written; fails where a row would read another's history."""

    scheduler: Scheduler
    slots: dict[int, object] = field(default_factory=dict)
    num_right: int = 0
    scored: dict[Row, list[int]] = field(default_factory=dict)

    def step(self) -> Plan:
        plan = self.scheduler.schedule()
        limits = self.scheduler.limits
        assert sum(len(piece.token_ids) for piece in plan.pieces) <= limits.max_step_tokens
        assert len(self.scheduler.running) <= limits.max_rows
        for piece in plan.pieces:
            assert piece.start == piece.table.num_cached
            places = [
                block * limits.block_tokens + offset
                for block in piece.table.blocks
                for offset in range(limits.block_tokens)
            ]
            token_ids = [*piece.row.token_ids[: piece.start], *piece.token_ids]
            for position in range(len(token_ids)):
                content = (
                    tuple(token_ids[: position + 1]),
                    piece.table.rotary,
                    piece.row.adapter,
                    tuple(medium.digest for medium in piece.row.media if medium.start <= position),
                )
                if position >= piece.start:
                    self.slots[places[position]] = content
                assert self.slots[places[position]] == content
        for piece in plan.pieces:
            self.scored.setdefault(piece.row, []).extend(piece.scored_prompt)
            right = 0
            for place in range(piece.num_choices):
                row = piece.row
                assert piece.table.rotary == row.rotary
                assert not row.is_full
                row.token_ids.append(next_token(row.token_ids, piece.table.rotary, row.adapter))
                if place >= len(piece.drafts) or piece.drafts[place] != row.token_ids[-1]:
                    break
                right += 1
            self.num_right += right
            self.scheduler.commit(piece, right)
        for piece in plan.pieces:
            if piece.row.is_full and piece.row in self.scheduler.running:
                self.scheduler.remove(piece.row)
        return plan

    def run(self) -> None:
        for _ in range(3000):
            if not self.scheduler.has_rows:
                return
            assert self.step().pieces or not self.scheduler.running
        raise AssertionError("rows are left over")


def expected(row: Row) -> list[int]:
    """What a row must become, computed without a scheduler."""
    token_ids = row.token_ids[: row.num_prompt_tokens]
    while len(token_ids) < row.max_length:
        rotary = "long" if len(token_ids) > ORIGINAL_CONTEXT else "short"
        token_ids.append(next_token(token_ids, rotary, row.adapter))
    return token_ids


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Rows that often begin alike, of two adapters, with and without media, some of which grow past the context."""
    found = []
    for number in range(draw(st.integers(1, 7))):
        prompt = ([1, 2, 3] * 12)[: draw(st.integers(1, 30))] + draw(st.lists(st.integers(0, 3), max_size=3))
        medium = Medium("vision", None, start=0, num_tokens=3, digest=draw(st.sampled_from("ab")))
        row = Row(
            number,
            prompt,
            max_length=len(prompt) + draw(st.integers(1, 12)),
            priority=draw(st.integers(0, 1)),
            media=(medium,) if draw(st.booleans()) else (),
            adapter=draw(st.sampled_from([None, "vision"])),
            original_context=ORIGINAL_CONTEXT,
            prompt_logprobs=draw(st.sampled_from([None, 0])),
            num_scored=draw(st.integers(0, 40)),
        )
        if found and draw(st.booleans()) and not row.media:
            row = replace(found[-1], number=number, token_ids=list(found[-1].token_ids))
        found.append(row)
    return found


limits = st.builds(
    SchedulerLimits,
    max_step_tokens=st.integers(4, 40),
    max_rows=st.integers(1, 4),
    block_tokens=st.integers(1, 6),
    reuse_prefixes=st.booleans(),
    long_ahead=st.floats(0, 1),
    max_draft_tokens=st.integers(0, 5),
)


@settings(max_examples=200, deadline=None)
@given(rows(), limits, st.integers(0, 60), st.data())
def test_every_row_gets_what_it_gets_alone_and_no_block_leaks(
    mixture: list[Row], bounds: SchedulerLimits, spare_tokens: int, data: st.DataObject
) -> None:
    """With blocks for the longest row and a few more, rows preempt each other; some arrive late, some are cancelled."""
    longest = max(row.max_length for row in mixture)
    num_blocks = -(-longest // bounds.block_tokens) + spare_tokens // bounds.block_tokens
    machine = Machine(Scheduler(BlockPool(num_blocks), bounds))
    wanted = [expected(row) for row in mixture]
    unscored = [row.num_scored for row in mixture]
    cancelled = data.draw(st.sets(st.sampled_from(range(len(mixture))), max_size=1))
    for row in mixture:
        machine.scheduler.add(row)
        for _ in range(data.draw(st.integers(0, 4))):
            machine.step()
    for place in cancelled:
        if mixture[place] in machine.scheduler.running + machine.scheduler.waiting:
            machine.scheduler.remove(mixture[place])
    machine.run()
    assert all(
        row.token_ids == answer or place in cancelled
        for place, (row, answer) in enumerate(zip(mixture, wanted, strict=True))
    )
    for place, row in enumerate(mixture):
        if place not in cancelled:
            places = range(unscored[place], row.num_prompt_tokens - 1)
            assert machine.scored[row] == ([] if row.prompt_logprobs is None else list(places))
    assert machine.scheduler.pool.num_available == num_blocks


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(0, 40))
def test_a_budget_is_used_up_and_shared_evenly(wanted: list[int], budget: int) -> None:
    lengths = share_budget(wanted, budget)
    assert sum(lengths) == min(budget, sum(wanted))
    assert all(0 <= length <= want for length, want in zip(lengths, wanted, strict=True))
    unfinished = [length for length, want in zip(lengths, wanted, strict=True) if length < want]
    assert not unfinished or max(lengths) - min(unfinished) <= 1


def start(num_blocks: int, *mixture: Row, **changes: float) -> Machine:
    bounds = replace(SchedulerLimits(max_step_tokens=16, max_rows=4, block_tokens=4), **changes)
    machine = Machine(Scheduler(BlockPool(num_blocks), bounds))
    for row in mixture:
        machine.scheduler.add(row)
    return machine


def test_answers_go_on_while_a_long_prompt_is_read_in_chunks() -> None:
    answering, reading = Row(0, [1], max_length=9), Row(1, [2] * 40, max_length=41)
    machine = start(20, answering, reading)
    for length in range(2, 4):
        plan = machine.step()
        assert len(answering.token_ids) == length
        assert sum(piece.length for piece in plan.pieces) == 16


def test_the_lowest_and_youngest_row_gives_way_and_comes_back_first() -> None:
    important, old, young = (Row(number, [number] * 4, max_length=12) for number in range(3))
    important.priority = 1
    machine = start(6, important, old, young, reuse_prefixes=False)
    while machine.scheduler.counts.preempted == 0:
        machine.step()
    assert machine.scheduler.waiting == [young]
    late = Row(3, [3], max_length=2)
    machine.scheduler.add(late)
    assert machine.scheduler.waiting == [young, late]
    machine.run()


def test_an_urgent_row_takes_the_place_of_a_less_urgent_one() -> None:
    patient = Row(0, [1] * 8, max_length=24)
    machine = start(8, patient, max_rows=1)
    machine.step()
    urgent = Row(1, [2] * 4, max_length=6, priority=1)
    machine.scheduler.add(urgent)
    machine.step()
    assert machine.scheduler.running == [urgent]
    machine.run()
    assert patient.token_ids == expected(patient)


def test_a_prompt_larger_than_the_cache_is_refused() -> None:
    machine = start(2)
    with pytest.raises(CapacityError, match="9 tokens, but the whole cache holds 8"):
        machine.scheduler.add(Row(0, [1] * 9, max_length=10))


def test_a_row_that_outgrows_the_cache_ends_and_the_others_go_on() -> None:
    growing, other = Row(0, [1] * 5, max_length=50), Row(1, [2] * 5, max_length=8)
    machine = start(3, growing, other)
    outgrown = []
    while machine.scheduler.has_rows:
        plan = machine.step()
        for row in plan.outgrown:
            machine.scheduler.remove(row)
        outgrown += plan.outgrown
    assert outgrown == [growing]
    assert len(growing.token_ids) == 13
    assert other.is_full


def num_computed(machine: Machine) -> int:
    """Runs all rows; how many tokens that took."""
    total = 0
    while machine.scheduler.has_rows:
        total += sum(piece.length for piece in machine.step().pieces)
    return total


@pytest.mark.parametrize("max_step_tokens", [5, 16, 50])
def test_equal_prompts_that_come_together_are_computed_once(max_step_tokens: int) -> None:
    mixture = [Row(number, [5] * 45, max_length=47) for number in range(3)]
    machine = start(40, *mixture, max_step_tokens=max_step_tokens)
    assert num_computed(machine) == 46 + 2 * 2
    assert machine.scheduler.counts.reused_tokens == 2 * 44


def test_what_prompts_have_in_common_is_computed_once_and_another_prompt_does_not_wait() -> None:
    leader, follower = (Row(number, [5] * 20 + [number] * 12, max_length=33) for number in range(2))
    other = Row(2, [7] * 20, max_length=21)
    machine = start(40, leader, follower, other)
    machine.step()
    assert machine.scheduler.waiting == [follower]
    num_computed(machine)
    assert machine.scheduler.counts.reused_tokens == 20


def test_nobody_waits_for_a_row_that_is_gone() -> None:
    """What it has computed so far is used; the rest is computed by the one who waited, for whom others wait then."""
    rows = [Row(number, [5] * 41, max_length=42) for number in range(3)]
    machine = start(40, *rows)
    machine.step()
    machine.scheduler.remove(rows[0])
    assert num_computed(machine) == 41 - 16 + 1
    assert machine.scheduler.counts.reused_tokens == 16 + 40


def test_nobody_waits_for_a_row_that_was_preempted() -> None:
    leader, follower = (Row(number, [5] * 41, max_length=42, priority=number) for number in range(2))
    machine = start(12, leader)
    machine.step()
    machine.scheduler.add(follower)
    machine.scheduler.add(Row(2, [7] * 20, max_length=21, priority=2))
    machine.run()
    assert machine.scheduler.counts.preempted > 0
    assert leader.token_ids == follower.token_ids == expected(follower)


def test_the_long_table_is_built_in_even_steps_before_it_is_needed() -> None:
    row = Row(0, [1] * 14, max_length=40, original_context=ORIGINAL_CONTEXT)
    machine = start(40, row, long_ahead=1 / 3)
    sizes = []
    while machine.scheduler.has_rows:
        answering = row.num_missing == 1
        plan = machine.step()
        if answering:
            sizes.append(sum(piece.length for piece in plan.pieces))
    assert machine.scheduler.counts.switched == 1
    assert max(sizes) <= 1 + ORIGINAL_CONTEXT // 8 + 1


def test_guesses_that_are_right_save_steps() -> None:
    row = Row(0, [1, 2, 3] * 5, max_length=24)
    machine = start(40, row, max_draft_tokens=6)
    steps = 0
    while machine.scheduler.has_rows:
        machine.step()
        steps += 1
    assert row.token_ids == expected(row)
    assert machine.num_right > 0
    assert steps == 9 - machine.num_right


def test_limits_that_leave_a_row_without_a_token_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_rows is 5 and max_step_tokens \(--max-batch-tokens\) 4"):
        SchedulerLimits(max_step_tokens=4, max_rows=5)


@pytest.mark.parametrize("max_draft_tokens", [-1, 17])
def test_guesses_without_bounds_are_refused(max_draft_tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"from 0 to 16, not {max_draft_tokens}"):
        SchedulerLimits(max_draft_tokens=max_draft_tokens)
