"""Writes safetensors tensor by tensor, so that a checkpoint of any size is written with one tensor in memory."""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from phi4.checkpoint.directories import write_json
from phi4.checkpoint.tensor_files import DTYPE_NAMES, DTYPES, INDEX_FILE, SINGLE_FILE, StoredTensor
from phi4.errors import CheckpointError
from phi4.files import new_file

# Called with the bytes written so far and the bytes in all.
Progress = Callable[[int, int], None]

# The release keeps its shards below 5 GB.
MAX_SHARD_BYTES = 4_500_000_000


@dataclass(frozen=True)
class TensorSpec:
    """What must be known of a tensor before its values exist."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the values in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def specs_of(tensors: Mapping[str, torch.Tensor] | Mapping[str, StoredTensor]) -> dict[str, TensorSpec]:
    """Returns the dtype and shape of every tensor, in memory or in a file."""
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Gives the values of a tensor as they stand in a safetensors file; no copy if it is contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_file(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes one safetensors file under a temporary name and renames it when it is complete.

    Args:
        path: where the file will stand; folders above it are made.
        specs: dtype and shape of every tensor, by name.
        tensor_of: gives the values of a named tensor; called once for each, when they are due.
        metadata: free text kept in the header.

    Raises:
        CheckpointError: a dtype cannot be stored or `tensor_of` returns something else than the spec promised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial, partial.open("wb") as file:
        _write_header(file, specs, metadata or {"format": "pt"})
        for name in _in_file_order(specs):
            tensor, spec = tensor_of(name), specs[name]
            if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
                raise CheckpointError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}, but {spec.dtype} {list(spec.shape)} was announced"
                )
            file.write(tensor_bytes(tensor))


def _in_file_order(specs: Mapping[str, TensorSpec]) -> list[str]:
    # Wider values first: every tensor then starts at a multiple of its own value size and can be mapped.
    return sorted(specs, key=lambda name: -specs[name].dtype.itemsize)


def _write_header(file: BinaryIO, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> None:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in _in_file_order(specs):
        spec = specs[name]
        if spec.dtype not in DTYPE_NAMES:
            raise CheckpointError(f"{name} is {spec.dtype}; only {', '.join(DTYPES)} are stored")
        end = offset + spec.num_bytes
        header[name] = {"dtype": DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # Values begin at a multiple of 64 bytes, the width of a cache line and of the widest vector load.
    encoded += b" " * (-(8 + len(encoded)) % 64)
    file.write(struct.pack("<Q", len(encoded)) + encoded)


def plan_shards(specs: Mapping[str, TensorSpec], max_shard_bytes: int) -> list[list[str]]:
    """Cuts the names, in their order, into shards of at most `max_shard_bytes`; a larger tensor stands alone."""
    shards: list[list[str]] = []
    room = 0
    for name, spec in specs.items():
        if not shards or spec.num_bytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= spec.num_bytes
    return shards


def write_weights(
    directory: Path,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], torch.Tensor],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes `model.safetensors`, or numbered shards and their index when one shard does not hold everything."""
    total = sum(spec.num_bytes for spec in specs.values())
    written = 0

    def tensor_then_report(name: str) -> torch.Tensor:
        nonlocal written
        written += specs[name].num_bytes
        if progress is not None:
            progress(written, total)
        return tensor_of(name)

    shards = plan_shards(specs, max_shard_bytes)
    if len(shards) <= 1:
        write_file(directory / SINGLE_FILE, specs, tensor_then_report)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        shard = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_file(directory / shard, {name: specs[name] for name in names}, tensor_then_report)
        weight_map |= dict.fromkeys(names, shard)
    write_json(directory / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
