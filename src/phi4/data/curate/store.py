"""Documents on disk between two phases of curation: one Arrow stream for each task."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datatrove.data import Document, Media

from phi4.data.curate.documents import num_bytes
from phi4.data.record import to_json
from phi4.files import new_file

# Documents are written, and read again, so many bytes at a time.
BATCH_BYTES = 8 * 2**20

_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("id", "text", "metadata")),
        pa.field("media", pa.list_(pa.binary()), nullable=False),
        pa.field("types", pa.list_(pa.int8()), nullable=False),
    ]
)


def store_name(task: int) -> str:
    """The file of one task; tasks begin at 0."""
    return f"{task:05}.arrows"


def written(path: Path, documents: Iterable[Document]) -> Iterator[Document]:
    """Hands documents on and writes them; the file appears when the last one has gone by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        new_file(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_stream(file, _SCHEMA) as writer,
    ):
        rows: list[dict[str, Any]] = []
        size = 0
        for document in documents:
            rows.append(_row(document))
            size += num_bytes(document)
            if size >= BATCH_BYTES:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
                rows, size = [], 0
            yield document
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))


def stored(path: Path) -> Iterator[Document]:
    """Reads what `written` wrote."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            for row in batch.to_pylist():
                media = [
                    Media(str(number), kind, "", media_bytes=content)
                    for number, (content, kind) in enumerate(zip(row["media"], row["types"], strict=True))
                ]
                yield Document(row["text"], row["id"], media, json.loads(row["metadata"]))


def _row(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "text": document.text,
        "metadata": to_json(document.metadata),
        "media": [medium.media_bytes for medium in document.media],
        "types": [medium.type for medium in document.media],
    }
