"""Shards: the same records give the same bytes, every record comes back, and no damage goes unseen."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.samples import contents, media_record, record
from phi4.data.record import Record, read_records, write_records
from phi4.data.shards import ShardedRecords, write_shards
from phi4.errors import DataError
from phi4.processing.messages import Image, Message, Signal
from phi4.processing.tools import ToolCall

SPLITS = ("train", "valid", "test")
# Three records with media fill one shard.
SHARD_BYTES = 40_000


def records() -> list[Record]:
    return [media_record(seed, split=SPLITS[seed % 3], source=f"set {seed % 2}") for seed in range(10)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_shards(records(), tmp_path / "shards", SHARD_BYTES)
    return tmp_path / "shards"


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_the_same_records_give_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "records.jsonl", records())
    write_shards(read_records(tmp_path / "records.jsonl"), tmp_path / "again", SHARD_BYTES)
    files = [{path.name: path.read_bytes() for path in place.iterdir()} for place in (directory, tmp_path / "again")]
    assert files[0] == files[1]
    assert sorted(files[0]) == ["manifest.json", *(f"shard-0000{number}.arrow" for number in range(4))]


def test_rejected_answers_come_back_and_shards_without_any_keep_their_bytes(tmp_path: Path) -> None:
    write_shards([record("a", rejected="It is b."), record("b")], tmp_path / "compared")
    write_shards([record("b")], tmp_path / "plain")
    assert [item.rejected for item in ShardedRecords.open(tmp_path / "compared")] == ["It is b.", None]
    plain = ShardedRecords.open(tmp_path / "plain")
    assert (plain[0].rejected, b"rejected" in (tmp_path / "plain/shard-00000.arrow").read_bytes()) == (None, False)


def test_every_record_comes_back_from_any_place(directory: Path) -> None:
    opened, expected = ShardedRecords.open(directory), [contents(item) for item in records()]
    assert len(opened) == 10
    assert [contents(item) for item in opened] == expected
    for index in (9, -1, 0, -10, 3, 2):
        assert contents(opened[index]) == expected[index]
    assert [contents(item) for item in opened[1:8:3]] == expected[1:8:3]
    for outside in (10, -11):
        with pytest.raises(IndexError):
            opened[outside]


def test_a_split_is_a_view_in_the_same_order(directory: Path) -> None:
    opened = ShardedRecords.open(directory)
    chosen = opened.select("valid")
    assert [item.id for item in chosen] == ["media-1", "media-4", "media-7"]
    assert [item.id for item in chosen[1:]] == ["media-4", "media-7"]
    assert chosen[-1].id == "media-7"
    with pytest.raises(IndexError):
        chosen[3]
    assert sum(len(opened.select(split)) for split in ("train", "valid", "test")) == len(opened)


@given(st.integers(1, 30_000), st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_records_are_the_same_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, max_shard_bytes: int, sizes: Sequence[int]
) -> None:
    directory = tmp_path_factory.mktemp("shards") / "new"
    items = [
        record(
            str(number),
            Message("system", "", tools="[]"),
            Message("user", ("é" * 1000 * size, *[Image(b"x" * 1000 * size)] * size, Signal("smell", b""))),
            Message("assistant", "a\0b", tool_calls=(ToolCall("f", {"x": [None, {}]}),)),
        )
        for number, size in enumerate(sizes)
    ]
    write_shards(items, directory, max_shard_bytes)
    assert [contents(item) for item in ShardedRecords.open(directory)] == [contents(item) for item in items]


def test_a_sample_has_the_count_the_order_and_every_kind_that_takes_turns(tmp_path: Path) -> None:
    write_shards((record(str(seed), source=f"voice {seed % 6}") for seed in range(300)), tmp_path / "shards")
    train = ShardedRecords.open(tmp_path / "shards").select("train")
    sample = train.sample(100)
    assert len(sample) == 100
    assert np.all(np.diff(sample.indices) > 0)
    assert len({one.source for one in sample}) == 6
    assert [one.id for one in train.sample(100)] == [one.id for one in sample]
    assert (len(train.sample(0)), len(train.sample(301))) == (0, 300)


def test_the_manifest_tells_what_there_is(directory: Path, tmp_path: Path) -> None:
    opened = ShardedRecords.open(directory)
    manifest = json.loads((directory / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["records"]) == ("phi4-shards", 1, 10)
    assert sum(source["records"] for source in manifest["sources"]) == 10
    assert {"source": "set 1", "licence": "CC0-1.0", "split": "valid", "task": "chat", "records": 2} in manifest[
        "sources"
    ]
    for shard in manifest["shards"]:
        content = (directory / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])
    assert opened.digest == hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()
    write_shards(records()[::-1], tmp_path / "reversed", SHARD_BYTES)
    assert ShardedRecords.open(tmp_path / "reversed").digest != opened.digest


def test_progress_counts_the_records(tmp_path: Path) -> None:
    told: list[int] = []
    write_shards(records(), tmp_path / "shards", SHARD_BYTES, told.append)
    assert told == list(range(1, 11))


@pytest.mark.parametrize("place", [0, 100, 20_000, -1])
def test_a_flipped_byte_names_its_file(directory: Path, place: int) -> None:
    path = directory / "shard-00001.arrow"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00001\.arrow is damaged: its SHA-256 is"):
        ShardedRecords.open(directory)


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_missing_or_foreign_shard_names_its_file(directory: Path, tmp_path: Path, verify: bool) -> None:
    path = directory / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"shard-00002\.arrow is truncated or damaged: it has \d+ bytes instead of \d+"):
        ShardedRecords.open(directory, verify=verify)
    path.unlink()
    with pytest.raises(DataError, match=r"shard-00002\.arrow is missing"):
        ShardedRecords.open(directory, verify=verify)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pa.table({"id": ["a"]}), r"holds 1 rows with columns \['id'\]"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_another_kind_is_refused(directory: Path, content: pa.Table | None, said: str) -> None:
    path = directory / "shard-00000.arrow"
    if content is None:
        path.write_bytes(b"text")
    else:
        with pa.ipc.new_file(str(path), content.schema) as writer:
            writer.write(content)
    entry = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    edit_manifest(directory, lambda manifest: manifest["shards"][0].update(entry))
    with pytest.raises(DataError, match=rf"shard-00000\.arrow {said}"):
        ShardedRecords.open(directory)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: manifest.update(version=2), r"not a manifest of phi4-shards, version 1, but .*'version': 2"),
        (lambda manifest: manifest.update(format="wds"), "'format': 'wds'"),
        (lambda manifest: manifest.pop("shards"), "incomplete or damaged: KeyError.*shards"),
        (lambda manifest: manifest.update(sources=3), "incomplete or damaged"),
        (lambda manifest: manifest["shards"][0].update(records="x"), "incomplete or damaged"),
        (lambda manifest: manifest["shards"][0].update(colour=1), "incomplete or damaged"),
        (lambda manifest: manifest["shards"][0].update(file="../shard-00000.arrow"), "they must be shard-00000.arrow"),
        (lambda manifest: manifest["shards"].pop(), "10 records, its shards hold 9 and its sources 10"),
        (lambda manifest: manifest.update(records=11), "11 records, its shards hold 10"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    edit_manifest(directory, change)
    with pytest.raises(DataError, match=said):
        ShardedRecords.open(directory)


@pytest.mark.parametrize(("content", "said"), [(b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[]", r"\[\]")])
def test_a_manifest_that_is_no_object_is_refused(directory: Path, content: bytes, said: str) -> None:
    (directory / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        ShardedRecords.open(directory)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json cannot be read: No such file"):
        ShardedRecords.open(tmp_path)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "no records"),
        ([record("a"), record("b"), record("a")], "two records have the id 'a'"),
        ([record("a"), record("b", Message("user", (Image("x.png"),)), Message("assistant", "?"))], "'b' has a medium"),
    ],
)
def test_nothing_is_left_of_shards_that_could_not_be_written(
    tmp_path: Path, items: Sequence[Record], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        write_shards(items, tmp_path / "shards", max_shard_bytes=1)
    assert not any(tmp_path.iterdir())


def test_nothing_is_overwritten(directory: Path) -> None:
    before = (directory / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="exists and is not empty"):
        write_shards([record("a")], directory)
    assert (directory / "manifest.json").read_bytes() == before
    (directory.parent / "empty").mkdir()
    write_shards([record("a")], directory.parent / "empty")
    assert ShardedRecords.open(directory.parent / "empty")[0].id == "a"


def test_a_shard_has_a_possible_size(tmp_path: Path) -> None:
    for size in (0, 2**31):
        with pytest.raises(DataError, match=f"max_shard_bytes is {size}"):
            write_shards([record("a")], tmp_path / "shards", size)
