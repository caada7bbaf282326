"""Attention over the paged cache with the release's heads: fp32 sums beside products of bf16 and of bytes.

How long a layer takes for one token and for a chunk of a prompt behind a history, by processor time of one thread, in
turns. The operations are those of the keys that each query sees, the bytes those of the history.

    python benchmarks/paged_attention.py
"""

import argparse
import time
from collections.abc import Callable

import torch
from timing import alternate

from phi4.kernels.cached_bytes import scale_counts
from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.instructions import LEVELS
from phi4.kernels.paged_attention import PagedAttention

HEADS, KV_HEADS, HEAD_DIM = 24, 8, 128
BLOCK_TOKENS = 64
# What the cache holds, and the level of instructions; "avx512" has neither products of bf16 nor of bytes.
WAYS = {
    "fp32 sums of bf16": (torch.bfloat16, "avx512"),
    "bf16": (torch.bfloat16, LEVELS[0]),
    "fp32 sums of bytes": (torch.int8, "avx512"),
    "bytes": (torch.int8, LEVELS[0]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"instructions {LEVELS[0]}, one thread, medians of {arguments.rounds}")
    with torch.inference_mode():
        for tokens, cached in ((1, 8192), (1, 32_768), (512, 0), (512, 8192)):
            runs = {name: layer(tokens, cached, *way) for name, way in WAYS.items()}
            operations = 4 * HEADS * HEAD_DIM * tokens * (cached + (tokens + 1) / 2)
            for name, seconds in alternate(runs, arguments.rounds, time.process_time).items():
                numbers = 2 * KV_HEADS * HEAD_DIM
                scales = 4 * KV_HEADS * sum(scale_counts(HEAD_DIM))
                size = numbers + scales if WAYS[name][0] == torch.int8 else 2 * numbers
                print(
                    f"{tokens} behind {cached}, {name}: {1e3 * seconds:.2f} ms, "
                    f"{operations / seconds / 1e12:.3f} TOPS, {size * (cached + tokens) / seconds / 1e9:.1f} GB/s",
                    flush=True,
                )


def layer(tokens: int, cached: int, dtype: torch.dtype, level: str) -> Callable[[], torch.Tensor]:
    """What attends in one layer: new tokens of one conversation behind a history of random values."""
    slots = -(-(tokens + cached) // BLOCK_TOKENS) * BLOCK_TOKENS
    shape = (KV_HEADS, slots, HEAD_DIM)
    scales = None
    if dtype == torch.int8:
        keys, values = (torch.randint(-127, 128, shape, dtype=dtype) for _ in range(2))
        of_key, of_value = scale_counts(HEAD_DIM)
        scales = [(torch.full((*shape[:2], of_key), 1 / 64), torch.full((*shape[:2], of_value), 1 / 64))]
    else:
        keys, values = (torch.randn(shape).to(dtype) for _ in range(2))
    paged = PagedAttention.of([(tokens, cached, [(0, slots)])], CachedLayers([keys], [values], scales), level)
    queries = torch.randn(tokens, HEADS, HEAD_DIM).bfloat16()
    new = torch.randn(2, tokens, KV_HEADS, HEAD_DIM).bfloat16()
    return lambda: paged.attend(0, queries, *new)


if __name__ == "__main__":
    main()
