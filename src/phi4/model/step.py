"""All that a layer must know about one forward pass, passed explicitly."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from phi4.config import DecoderConfig
from phi4.inputs import Rotary
from phi4.kernels.paged_attention import PagedAttention, can_attend
from phi4.model.packed_attention import PackedAttention
from phi4.model.paged_cache import CacheRow
from phi4.model.rope import RotaryTables


@dataclass(frozen=True)
class Segment:
    """The part of one conversation that a forward pass adds.

    Attributes:
        length: new tokens.
        cached: tokens of the same conversation that stand before these: in its cache, or in `prefix`.
        adapter: name of the LoRA that is active for these tokens, or None for the bare base model.
        rotary: which LongRoPE table the conversation uses.
        cache: where keys and values are kept, or None when nothing follows this pass.
        prefix: index of an earlier segment of the same pass, without a cache, that this conversation begins with;
            several may share one, which is then computed once.
    """

    length: int
    cached: int = 0
    adapter: str | None = None
    rotary: Rotary = "short"
    cache: CacheRow | None = None
    prefix: int | None = None


@dataclass(frozen=True)
class AdapterRun:
    """Neighbouring packed rows, start <= row < stop, that share an adapter."""

    adapter: str
    start: int
    stop: int


@dataclass(frozen=True)
class Outputs:
    """The packed rows whose output is asked for; the last layer spares itself the others.

    Attributes:
        rows: indices into the packed tokens, [rows].
        adapter_runs: the adapters of these rows, counted in their own order.
    """

    rows: torch.Tensor
    adapter_runs: tuple[AdapterRun, ...]


@dataclass(frozen=True)
class Step:
    """One forward pass over packed tokens.

    Attributes:
        segments: the conversations, laid end to end.
        cos: [tokens, 1, rotary_dim / 2], the constant already applied.
        sin: [tokens, 1, rotary_dim / 2].
        adapter_runs: the rows that an adapter touches; rows of text are in none.
        outputs: the rows whose output is asked for, or None for all.
        paged: attends to all conversations at once; None where a segment has no cache, or there is no kernel for it.
        packed: attends to all conversations at once where none has a cache and the device is not the CPU.
        recompute: whether each layer forgets its activations and runs again in the backward pass: slower by a third,
            and the memory of one layer in place of all.
    """

    segments: tuple[Segment, ...]
    cos: torch.Tensor
    sin: torch.Tensor
    adapter_runs: tuple[AdapterRun, ...]
    outputs: Outputs | None
    paged: PagedAttention | None
    packed: PackedAttention | None
    recompute: bool


def build_step(
    segments: Sequence[Segment],
    tables: RotaryTables,
    dtype: torch.dtype,
    device: torch.device,
    output_rows: Sequence[int] | None,
    recompute: bool = False,
) -> Step:
    """Lays segments end to end."""
    lengths = [segment.length for segment in segments]
    positions = torch.cat([torch.arange(s.cached, s.cached + s.length, device=device) for s in segments])
    cos, sin = tables.cos_sin(positions, [segment.rotary for segment in segments], lengths, dtype)
    row_adapters = [segment.adapter for segment in segments for _ in range(segment.length)]
    outputs = None
    if output_rows is not None and list(output_rows) != list(range(len(row_adapters))):
        outputs = Outputs(
            rows=torch.tensor(output_rows, dtype=torch.long, device=device),
            adapter_runs=find_runs([row_adapters[row] for row in output_rows]),
        )
    packed = None
    if device.type != "cpu" and all(segment.cache is None for segment in segments):
        packed = PackedAttention.of(lengths, [segment.prefix for segment in segments], device)
    paged = paged_attention(segments, dtype)
    return Step(tuple(segments), cos, sin, find_runs(row_adapters), outputs, paged, packed, recompute)


def paged_attention(segments: Sequence[Segment], dtype: torch.dtype) -> PagedAttention | None:
    """The kernel for conversations that are all kept in one cache, if there is one for it; it has no gradients.

    Args:
        segments: what the pass adds to each conversation.
        dtype: type of the queries.
    """
    rows = [segment.cache for segment in segments if segment.cache is not None]
    if len(rows) < len(segments) or len({id(row.cache) for row in rows}) != 1:
        return None
    cache = rows[0].cache
    if not can_attend(cache.layers.keys[0], dtype):
        return None
    parts = [(segment.length, segment.cached, row.runs) for segment, row in zip(segments, rows, strict=True)]
    return PagedAttention.of(parts, cache.layers)


def rotary_for(config: DecoderConfig, num_tokens: int) -> Rotary:
    """The LongRoPE table of a conversation of this length, by its own tokens alone."""
    return "long" if config.uses_long_rope(num_tokens) else "short"


def find_runs(row_adapters: Sequence[str | None]) -> tuple[AdapterRun, ...]:
    """Collects neighbouring rows with the same adapter, from the adapter of every row."""
    runs = []
    start = 0
    for adapter, rows in groupby(row_adapters):
        stop = start + len(list(rows))
        if adapter is not None:
            runs.append(AdapterRun(adapter, start, stop))
        start = stop
    return tuple(runs)
