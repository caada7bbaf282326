"""Prefill attention on the CPU with the release's heads: blocks of queries against torch's fused kernel.

python benchmarks/attention.py
"""

import torch
from timing import alternate

from phi4.model.attention import attend_in_blocks, attend_with_stock_kernel

HEADS, KV_HEADS, HEAD_DIM = 24, 8, 128


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds, median of 5")
    for dtype in (torch.bfloat16, torch.float32):
        for tokens, history in ((512, 512), (1024, 1024), (1024, 8192), (1024, 32768)):
            queries = torch.randn(tokens, HEADS, HEAD_DIM, dtype=dtype)
            keys, values = torch.randn(2, KV_HEADS, history, HEAD_DIM, dtype=dtype)
            seconds = alternate(
                {
                    "blocks": lambda q=queries, k=keys, v=values: attend_in_blocks(q, k, v),
                    "stock": lambda q=queries, k=keys, v=values: attend_with_stock_kernel(q, k, v),
                },
                rounds=5,
            )
            print(
                f"{dtype!s:15} {tokens:5} new of {history:6}: blocks {seconds['blocks'] * 1e3:8.1f}, "
                f"stock {seconds['stock'] * 1e3:8.1f}, ratio {seconds['stock'] / seconds['blocks']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
