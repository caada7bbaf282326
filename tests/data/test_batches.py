"""Batches: the same rows for any number of processes and interruptions, and nothing left out without a word."""

import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.samples import contents, media_record, record
from phi4.checkpoint.weights import LoadedModel
from phi4.data.batches import Batches, Row
from phi4.data.example import Example, encode_example
from phi4.data.order import Order
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords, write_shards
from phi4.errors import CapacityError, DataError, InputError
from phi4.inputs import ModelInputs
from phi4.processing.processor import Processor

TOKENS_PER_ROW = 20
SETS = {
    "short": [record(f"short {number}", task=str(1 + number % 5)) for number in range(300)],
    "long": [record(f"long {number}", task=str(8 + number % 13)) for number in range(70)],
}
WEIGHTS = {"short": 2.0, "long": 1.0}
# torch finds two processes too many for a machine with one core.
two_processes = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def encode(item: Record) -> Example:
    """An example as long as the record's task says."""
    return Example(ModelInputs((0,) * int(item.task)), (), (), item)


def add_noise(item: Record, generator: np.random.Generator) -> Record:
    return record(f"{item.id} {generator.integers(1 << 30)}", task=item.task)


def batches(num_streams: int = 3, **changes: Any) -> Batches:
    arguments = {"tokens_per_row": TOKENS_PER_ROW, "seed": 1, "augment": add_noise, **changes}
    return Batches(SETS, WEIGHTS, dict.fromkeys(SETS, arguments.pop("encode", encode)), num_streams, **arguments)


def shown(row: Row) -> list[str]:
    return [example.record.id for example in row.examples]


@given(st.integers(1, 4), st.lists(st.integers(0, 3), max_size=30), st.integers(0, 30))
def test_rows_after_a_restart_are_those_of_an_uninterrupted_run(
    num_streams: int, choices: Sequence[int], stop: int
) -> None:
    streams = [choice % num_streams for choice in choices]
    whole = batches(num_streams)
    expected = [shown(whole.next_row(stream)) for stream in streams]
    first, second = batches(num_streams), batches(num_streams)
    rows = [shown(first.next_row(stream)) for stream in streams[:stop]]
    second.restore(json.loads(json.dumps(first.state())))
    rows += [shown(second.next_row(stream)) for stream in streams[stop:]]
    assert rows == expected
    assert second.state() == whole.state()


def test_rows_do_not_depend_on_how_many_processes_share_the_streams() -> None:
    together, apart = batches(3), [batches(3) for _ in range(3)]
    rows = [shown(together.next_row(stream)) for _ in range(10) for stream in range(3)]
    assert [shown(apart[stream].next_row(stream)) for _ in range(10) for stream in range(3)] == rows
    furthest = [max(draws) for draws in zip(*(process.state()["draws"] for process in apart), strict=True)]
    assert furthest == together.state()["draws"]


@two_processes
def test_rows_are_the_same_when_other_processes_prepare_them() -> None:
    alone, ahead = batches(2), batches(2, workers=2)
    expected = [shown(alone.next_row(stream)) for _ in range(30) for stream in range(2)]
    assert [shown(ahead.next_row(stream)) for _ in range(15) for stream in range(2)] == expected[:30]
    taken_up = batches(2, workers=2)
    taken_up.restore(ahead.state())
    assert [shown(taken_up.next_row(stream)) for _ in range(15) for stream in range(2)] == expected[30:]


@two_processes
def test_skips_and_damage_are_told_by_the_processes_that_meet_them() -> None:
    def fail_rarely(item: Record) -> Example:
        if item.id.startswith("long 3"):
            raise InputError("the image is no picture")
        return encode(item)

    few = Batches(
        SETS, {"short": 100.0, "long": 1.0}, dict.fromkeys(SETS, fail_rarely), 1, TOKENS_PER_ROW, 0, None, workers=1
    )
    for _ in range(200):
        few.next_row(0)
    assert few.skipped.keys() == {"long: InputError"}
    with pytest.raises(DataError, match="200 of 200 records cannot be used"):
        batches(1, tokens_per_row=1, encode=lambda item: encode(SETS["long"][0]), workers=2).next_row(0)


def test_a_stream_takes_every_nth_draw_and_packs_it_greedily() -> None:
    order = Order({name: len(items) for name, items in SETS.items()}, WEIGHTS, seed=1)
    stream = batches(3, augment=None)
    rows = [stream.next_row(2) for _ in range(20)]
    drawn = [order.draw(2 + 3 * number) for number in range(sum(len(row.examples) for row in rows))]
    assert [name for row in rows for name in shown(row)] == [SETS[draw.dataset][draw.index].id for draw in drawn]
    assert [name for row in rows for name in row.datasets] == [draw.dataset for draw in drawn]
    for row, following in pairwise(rows):
        assert row.num_tokens <= TOKENS_PER_ROW
        assert row.num_tokens + len(following.examples[0].inputs.token_ids) > TOKENS_PER_ROW


def test_augmentation_depends_on_the_draw_alone() -> None:
    generators = [np.random.Generator(np.random.Philox(key=np.array([1, k], dtype=np.uint64))) for k in range(40)]
    noise = [str(generator.integers(1 << 30)) for generator in generators]
    names = {stream: shown(batches(num_streams).next_row(stream)) for num_streams, stream in ((1, 0), (3, 2))}
    assert [name.split()[-1] for name in names[0]] == noise[: len(names[0])]
    assert [name.split()[-1] for name in names[2]] == noise[2::3][: len(names[2])]


def test_an_example_waiting_for_the_next_row_is_encoded_once() -> None:
    encoded: list[str] = []

    def note(item: Record) -> Example:
        encoded.append(item.id)
        return encode(item)

    stream = batches(1, encode=note)
    rows = [name for _ in range(10) for name in shown(stream.next_row(0))]
    assert encoded[:-1] == rows


def test_what_cannot_be_used_is_skipped_and_counted() -> None:
    def fail_rarely(item: Record) -> Example:
        if item.id.startswith("long 3"):
            raise InputError("the image is no picture")
        return encode(item)

    few = Batches(SETS, {"short": 100.0, "long": 1.0}, dict.fromkeys(SETS, fail_rarely), 1, TOKENS_PER_ROW, 0, None)
    rows = [few.next_row(0) for _ in range(500)]
    assert few.skipped.keys() == {"long: InputError"}
    assert few.first_skipped[0].endswith(": the image is no picture")
    assert len(few.first_skipped) <= 3
    draws = few.state()["draws"][0]
    assert draws == sum(len(row.examples) for row in rows) + few.skipped.total()
    assert not any(name.startswith("long 3") for row in rows for name in shown(row))


@pytest.mark.parametrize("error", [InputError("no picture"), CapacityError("too long"), DataError("no end token")])
def test_more_than_a_few_skipped_stop_the_run_with_their_reasons(error: Exception) -> None:
    def fail_often(item: Record) -> Example:
        if "7" in item.id:
            raise error
        return encode(item)

    stream = batches(1, encode=fail_often, augment=None)
    reason = rf"\d+ of 200 records cannot be used; .*short, record 'short \d*7\d*': {error}"
    with pytest.raises(DataError, match=reason):
        list(map(stream.next_row, [0] * 200))


def test_an_example_longer_than_a_row_is_skipped() -> None:
    items = [record(str(number), task="21" if number == 5 else "3") for number in range(200)]
    stream = Batches({"a": items}, {"a": 1.0}, {"a": encode}, 1, TOKENS_PER_ROW, 0, None)
    for _ in range(40):
        assert stream.next_row(0).num_tokens <= TOKENS_PER_ROW
    assert stream.skipped == {"a: CapacityError": 1}
    assert stream.first_skipped == ["a, record '5': the example has 21 tokens, more than the 20 of a row"]


def test_nothing_but_unusable_records_ends_in_an_error() -> None:
    with pytest.raises(DataError, match="200 of 200 records cannot be used"):
        batches(1, tokens_per_row=1, encode=lambda item: encode(SETS["long"][0])).next_row(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2}, "seed 1 → 2"),
        ({"tokens_per_row": 30}, "tokens_per_row 20 → 30"),
        ({"num_streams": 4}, "num_streams 3 → 4"),
    ],
)
def test_a_state_of_other_data_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        batches(**changes).restore(batches().state())


def test_a_state_of_other_sets_or_without_draws_is_refused() -> None:
    fewer = Batches(
        {**SETS, "long": SETS["long"][:-1]}, WEIGHTS, dict.fromkeys(SETS, encode), 3, TOKENS_PER_ROW, 1, add_noise
    )
    with pytest.raises(DataError, match=r"sizes .*70.* → .*69"):
        fewer.restore(batches().state())
    with pytest.raises(DataError, match="draws"):
        batches().restore({**batches().state(), "draws": [1, 2]})


@pytest.mark.parametrize(("name", "value"), [("num_streams", 0), ("tokens_per_row", 0)])
def test_impossible_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(DataError, match=f"{name} (is )?{value}"):
        batches(**{name: value})


def test_rows_from_shards_hold_pictures_sounds_and_answers(
    tmp_path: Path, processor: Processor, tiny: LoadedModel
) -> None:
    items = [media_record(number, split="valid" if number % 4 == 0 else "train") for number in range(12)]
    write_shards(items, tmp_path / "media", max_shard_bytes=30_000)
    write_shards([record(str(number)) for number in range(5)], tmp_path / "text")
    opened = {name: ShardedRecords.open(tmp_path / name).select("train") for name in ("media", "text")}
    encoder = partial(encode_example, processor=processor, eos_token_ids=tiny.generation.eos_token_ids)
    stream = Batches(
        opened, {"media": 1.0, "text": 1.0}, dict.fromkeys(opened, encoder), 1, tokens_per_row=200, seed=0, augment=None
    )
    rows = [stream.next_row(0) for _ in range(6)]
    examples = [example for row in rows for example in row.examples]
    by_id = {item.id: item for item in items}
    media = [example for example in examples if example.inputs.media]
    assert 0 < len(media) < len(examples)
    assert all(contents(example.record) == contents(by_id[example.record.id]) for example in media)
    assert {example.record.split for example in examples} == {"train"}
    for example in examples:
        assert processor.tokenizer.decode(example.targets, skip_special=False) == f"{example.answer}<|end|>"
