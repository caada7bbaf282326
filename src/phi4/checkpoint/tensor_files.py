"""Reads safetensors: files are mapped into memory, and a tensor is a view of the map until somebody changes it."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from phi4.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Bytes are the codes of quantised weights.
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a mapped file: its header now, its values when asked."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    handle: Any

    @property
    def num_values(self) -> int:
        """How many values the tensor holds."""
        return torch.Size(self.shape).numel()

    def read(self) -> torch.Tensor:
        """Returns the tensor without copying it: a private view of the mapped file."""
        tensor: torch.Tensor = self.handle.get_tensor(self.name)
        return tensor


def list_some(names: Collection[str], most: int = 4) -> str:
    """Writes the first few names in order, then how many there are in all."""
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"


def map_file(path: Path) -> dict[str, StoredTensor]:
    """Maps one safetensors file and returns its tensors by name.

    Raises:
        CheckpointError: the file is missing, truncated or not safetensors, or holds another dtype than
            F32, F16, BF16 or U8.
    """
    handle = _open(path)
    slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (the handle is no mapping)
    unsupported = {name: view.get_dtype() for name, view in slices.items() if view.get_dtype() not in DTYPES}
    if unsupported:
        raise CheckpointError(
            f"{path}: {list_some(unsupported)} stored as {list_some(set(unsupported.values()))}; "
            f"only {', '.join(DTYPES)} are supported"
        )
    return {
        name: StoredTensor(path, name, DTYPES[view.get_dtype()], tuple(view.get_shape()), handle)
        for name, view in slices.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the free-text metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or not safetensors.
    """
    return dict(_open(path).metadata() or {})


def _open(path: Path) -> Any:
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; name a safetensors file in it")
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}); download or write it again"
        ) from error


def map_directory(directory: Path) -> dict[str, StoredTensor]:
    """Maps the weights of a model directory: `model.safetensors`, or the shards that its index names.

    Raises:
        CheckpointError: there are no weights, they are pickled, or shards and index contradict each other.
    """
    index = directory / INDEX_FILE
    if index.is_file():
        return _map_shards(directory, _read_index(index))
    if (directory / SINGLE_FILE).is_file():
        return map_file(directory / SINGLE_FILE)
    shards = sorted(path.name for path in directory.glob("model-*-of-*.safetensors"))
    if shards:
        raise CheckpointError(f"{directory} holds {list_some(shards)} but no {INDEX_FILE}; download the index too")
    refuse_pickles(directory)
    raise CheckpointError(f"{directory} holds neither {SINGLE_FILE} nor {INDEX_FILE}: it is no model directory")


def refuse_pickles(directory: Path) -> None:
    """Explains why a directory whose safetensors are missing is not loaded from the pickles in it.

    Raises:
        CheckpointError: there are some.
    """
    pickles = sorted(path.name for pattern in PICKLE_PATTERNS for path in directory.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{directory} holds pickled weights only ({list_some(pickles)}); loading them could run any code. "
            "Convert them to safetensors"
        )


def _read_index(index: Path) -> dict[str, str]:
    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if repeated := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
            raise CheckpointError(f"{index} lists {list_some(repeated)} twice")
        return dict(pairs)

    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=refuse_repeats)["weight_map"]
        shards = {str(name): str(shard) for name, shard in weight_map.items()}
    except OSError as error:
        raise CheckpointError(f"{index} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of safetensors shards: {error!r}") from error
    outside = {shard for shard in shards.values() if Path(shard).name != shard}
    if outside:
        raise CheckpointError(f"{index} names shards outside its own directory: {list_some(outside)}")
    return shards


def _map_shards(directory: Path, weight_map: dict[str, str]) -> dict[str, StoredTensor]:
    shards = sorted(set(weight_map.values()))
    absent = [shard for shard in shards if not (directory / shard).is_file()]
    if absent:
        raise CheckpointError(f"{directory / INDEX_FILE} names {list_some(absent)}, which is not there; download it")
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        mapped = map_file(directory / shard)
        twice = tensors.keys() & mapped.keys()
        if twice:
            other = tensors[min(twice)].path.name
            raise CheckpointError(f"{list_some(twice)} stored twice in {directory}: in {other} and in {shard}")
        tensors |= mapped
    misplaced = {name for name, shard in weight_map.items() if name not in tensors or tensors[name].path.name != shard}
    unlisted = tensors.keys() - weight_map.keys()
    if misplaced or unlisted:
        raise CheckpointError(
            f"{directory / INDEX_FILE} and its shards disagree: not where the index says: "
            f"{list_some(misplaced) or 'none'}; not in the index: {list_some(unlisted) or 'none'}"
        )
    return tensors
