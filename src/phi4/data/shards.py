"""Shards: records in Arrow files that are mapped, not read, so that any record is at hand at once."""

import bisect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute

from phi4.data.manifest import Manifest, ShardFile, SourceCount, read_manifest, shard_name, write_manifest
from phi4.data.record import REJECTED, Record, Split, distinct, messages_from_json, messages_to_json, to_json
from phi4.errors import DataError, InputError
from phi4.files import file_digest, new_directory

# Called with the number of records written so far.
Progress = Callable[[int], None]

MAX_SHARD_BYTES = 64 * 1024 * 1024
# Arrow's offsets into texts and media have 32 bits.
MAX_ARRAY_BYTES = 2**31 - 1

PROVENANCE = ("source", "licence", "split", "task")
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("id", *PROVENANCE, "messages")),
        pa.field("media", pa.list_(pa.field("item", pa.binary(), nullable=False)), nullable=False),
    ]
)
# Of a shard in which somebody compared answers; all others keep the columns above.
_COMPARED_SCHEMA = _SCHEMA.append(pa.field(REJECTED, pa.string()))


def write_shards(
    records: Iterable[Record],
    directory: Path,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes records as a new folder of shards with a manifest. The same records give the same bytes.

    The folder appears when it is complete.

    Args:
        records: in the order that they will have; their media are contents of files.
        directory: to be created; an empty one is filled.
        max_shard_bytes: texts and media of one shard; a larger record has a shard of its own.
        progress: told the number of records written so far.

    Raises:
        DataError: the directory is not empty, there are no records, two have the same id, or a medium is not the
            content of a file, or `max_shard_bytes` is out of range.
    """
    if not 1 <= max_shard_bytes <= MAX_ARRAY_BYTES:
        raise DataError(f"max_shard_bytes is {max_shard_bytes}; it must be 1 to {MAX_ARRAY_BYTES}")
    counts: Counter[tuple[str, str, str, str]] = Counter()
    shards: list[ShardFile] = []
    with new_directory(directory, DataError) as partial:
        for rows in _cut(_rows(records, progress), max_shard_bytes):
            shards.append(_write_shard(partial / shard_name(len(shards)), rows))
            counts.update((row["source"], row["licence"], row["split"], row["task"]) for row in rows)
        if not shards:
            raise DataError(f"there are no records to write into {directory}")
        sources = tuple(SourceCount(*origin, count) for origin, count in sorted(counts.items()))
        write_manifest(partial, Manifest(counts.total(), sources, tuple(shards)))


@dataclass(frozen=True, eq=False)
class ShardedRecords(Sequence[Record]):
    """The records of a folder of shards. Opening maps the files; a record is read when it is asked for.

    Attributes:
        directory: where they are.
        manifest: what it holds.
        digest: SHA-256 of the manifest, hexadecimal: equal digests mean equal records in equal order.
    """

    directory: Path
    manifest: Manifest
    digest: str
    _shards: tuple[pa.RecordBatch, ...] = field(repr=False)
    _ends: tuple[int, ...] = field(repr=False)

    @classmethod
    def open(cls, directory: Path, verify: bool = True) -> "ShardedRecords":
        """Opens a folder of shards.

        Args:
            directory: what `write_shards` made.
            verify: whether to read everything once and compare it with the digests in the manifest.

        Raises:
            DataError: a file is missing, or is not what was written.
        """
        manifest, digest = read_manifest(directory)
        shards = tuple(_open_shard(directory / shard.file, shard, verify) for shard in manifest.shards)
        ends = tuple(accumulate(shard.records for shard in manifest.shards))
        return cls(directory, manifest, digest, shards, ends)

    def __len__(self) -> int:
        return self.manifest.records

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> "Selection": ...

    def __getitem__(self, index: int | slice) -> "Record | Selection":
        if isinstance(index, slice):
            return Selection(self, np.arange(len(self))[index])
        position = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, position)
        start = self._ends[shard - 1] if shard else 0
        return _read_row(self._shards[shard], position - start, self.directory / self.manifest.shards[shard].file)

    @property
    def training_sources(self) -> list[str]:
        """Where the training records come from, with licences, sorted."""
        sources = self.manifest.sources
        return sorted({f"{source.source} ({source.licence})" for source in sources if source.split == "train"})

    def select(self, split: Split) -> "Selection":
        """The records of one split, in their order; nothing is copied."""
        chosen = [
            pa.compute.equal(shard.column("split"), split).to_numpy(zero_copy_only=False) for shard in self._shards
        ]
        return Selection(self, np.flatnonzero(np.concatenate(chosen)))


@dataclass(frozen=True, eq=False)
class Selection(Sequence[Record]):
    """Some of the records of a folder of shards.

    Attributes:
        records: all of them.
        indices: int64, [selected]; the places of these.
    """

    records: ShardedRecords
    indices: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> "Selection": ...

    def __getitem__(self, index: int | slice) -> "Record | Selection":
        if isinstance(index, slice):
            return Selection(self.records, self.indices[index])
        return self.records[int(self.indices[index])]

    def sample(self, count: int) -> "Selection":
        """So many of these, or all, drawn at random and always the same: voices and styles often take turns."""
        drawn = np.random.default_rng(0).permutation(len(self))[:count]
        return Selection(self.records, self.indices[np.sort(drawn)])


def _rows(records: Iterable[Record], progress: Progress | None) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(distinct(records), start=1):
        yield _row(record)
        if progress is not None:
            progress(number)


def _row(record: Record) -> dict[str, Any]:
    """One record as the columns of a shard have it; in the messages, media are numbers of the last column."""
    media: list[bytes] = []

    def store(content: bytes) -> int:
        media.append(content)
        return len(media) - 1

    messages = to_json(messages_to_json(record, store))
    provenance = {name: getattr(record, name) for name in PROVENANCE}
    row = {"id": record.id, **provenance, "messages": messages, "media": media}
    return row if record.rejected is None else {**row, REJECTED: record.rejected}


def _num_bytes(row: dict[str, Any]) -> int:
    texts = sum(len(value.encode()) for value in row.values() if isinstance(value, str))
    return texts + sum(map(len, row["media"]))


def _cut(rows: Iterable[dict[str, Any]], max_shard_bytes: int) -> Iterator[list[dict[str, Any]]]:
    """Groups rows, in their order, into shards of at most `max_shard_bytes`; a larger row stands alone."""
    shard: list[dict[str, Any]] = []
    room = max_shard_bytes
    for row in rows:
        size = _num_bytes(row)
        if shard and size > room:
            yield shard
            shard, room = [], max_shard_bytes
        shard.append(row)
        room -= size
    if shard:
        yield shard


def _write_shard(path: Path, rows: list[dict[str, Any]]) -> ShardFile:
    schema = _COMPARED_SCHEMA if any(REJECTED in row for row in rows) else _SCHEMA
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)
    return ShardFile(path.name, len(rows), path.stat().st_size, file_digest(path))


def _open_shard(path: Path, expected: ShardFile, verify: bool) -> pa.RecordBatch:
    """Maps a shard. Its size is always checked, since reading behind the end of a mapped file kills the process."""
    if not path.is_file():
        raise DataError(f"{path} is missing; the manifest beside it lists it")
    size = path.stat().st_size
    if size != expected.bytes:
        raise DataError(f"{path} is truncated or damaged: it has {size} bytes instead of {expected.bytes}")
    if verify and (digest := file_digest(path)) != expected.sha256:
        raise DataError(f"{path} is damaged: its SHA-256 is {digest} instead of {expected.sha256}; build it again")
    try:
        # The mapping outlives the open file, of which a process may only have a thousand or so.
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            num_batches, shard = reader.num_record_batches, reader.get_batch(0)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}; build it again") from error
    columns_known = shard.schema in (_SCHEMA, _COMPARED_SCHEMA)
    if num_batches != 1 or not columns_known or shard.num_rows != expected.records:
        raise DataError(
            f"{path} holds {shard.num_rows} rows with columns {shard.schema.names}, in "
            f"{num_batches} batches; {expected.records} rows of a record's columns in one are expected"
        )
    return shard


def _read_row(shard: pa.RecordBatch, row: int, path: Path) -> Record:
    fields = {name: shard.column(name)[row].as_py() for name in ("id", *PROVENANCE)}
    media = shard.column("media")[row]
    if REJECTED in shard.schema.names:
        fields[REJECTED] = shard.column(REJECTED)[row].as_py()
    try:
        raw = json.loads(shard.column("messages")[row].as_py())
        messages = messages_from_json(raw, lambda number: media[number].as_py())
        return Record(messages=messages, **fields)
    except (DataError, InputError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}, record {row} ({fields['id']!r}) is damaged: {error}") from error
