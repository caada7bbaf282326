"""What a folder of shards holds, by the manifest that stands beside them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi4.errors import DataError

FORMAT = "phi4-shards"
VERSION = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class SourceCount:
    """How many records of one origin there are.

    Attributes:
        source: as in the records.
        licence: as in the records.
        split: as in the records.
        task: as in the records.
        records: how many have these four.
    """

    source: str
    licence: str
    split: str
    task: str
    records: int


@dataclass(frozen=True)
class ShardFile:
    """One shard.

    Attributes:
        file: its name beside the manifest.
        records: how many it holds.
        bytes: its size.
        sha256: of the file, hexadecimal.
    """

    file: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The table of contents of a folder of shards.

    Attributes:
        records: how many there are in all.
        sources: where they come from, sorted.
        shards: in the order of the records.
    """

    records: int
    sources: tuple[SourceCount, ...]
    shards: tuple[ShardFile, ...]


def shard_name(number: int) -> str:
    """The name of a shard; numbers begin at 0."""
    return f"shard-{number:05}.arrow"


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest; the same contents give the same bytes."""
    value = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8", newline="\n")


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """Reads the manifest of a folder of shards.

    Returns:
        The manifest and the SHA-256 of its file: since the manifest holds the digests of the shards, it stands for all
        of their contents.

    Raises:
        DataError: there is no manifest, it is damaged, or another version wrote it.
    """
    path = directory / MANIFEST_FILE
    try:
        content = path.read_bytes()
        raw = json.loads(content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; a folder of shards has one") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}; build the shards again") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or raw.get("version") != VERSION:
        found = {key: raw.get(key) for key in ("format", "version")} if isinstance(raw, dict) else raw
        raise DataError(f"{path} is not a manifest of {FORMAT}, version {VERSION}, but {found}; build the shards again")
    try:
        manifest = _read(raw)
        _check(manifest, path)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is incomplete or damaged: {error!r}; build the shards again") from error
    return manifest, hashlib.sha256(content).hexdigest()


def _read(raw: Mapping[str, Any]) -> Manifest:
    return Manifest(
        records=raw["records"],
        sources=tuple(SourceCount(**entry) for entry in raw["sources"]),
        shards=tuple(ShardFile(**entry) for entry in raw["shards"]),
    )


def _check(manifest: Manifest, path: Path) -> None:
    # Names follow from numbers, so that a manifest from elsewhere cannot lead out of its folder.
    names = [shard.file for shard in manifest.shards]
    if names != [shard_name(number) for number in range(len(names))]:
        raise DataError(f"{path} lists the shards {names[:3]}...; they must be {shard_name(0)}, {shard_name(1)}, ...")
    in_shards = sum(shard.records for shard in manifest.shards)
    of_sources = sum(source.records for source in manifest.sources)
    if not manifest.records == in_shards == of_sources:
        raise DataError(
            f"{path} contradicts itself: it announces {manifest.records} records, its shards hold {in_shards} and its "
            f"sources {of_sources}; build the shards again"
        )
