"""How fast the native product is for one row and for many, against the stock one.

python benchmarks/linear_rows.py --dtype bfloat16 --rows 1 16 256
"""

import argparse

import torch
from timing import alternate
from torch.nn import functional

from phi4.kernels.instructions import LEVELS
from phi4.kernels.linear import multiply

# Outputs and inputs: nano's and Phi-4-Mini's wide and narrow layers.
SHAPES = {
    "nano gate_up": (3072, 576),
    "nano down": (576, 1536),
    "mini gate_up": (16384, 3072),
    "mini down": (3072, 8192),
}
# Matrices of a shape together exceed the caches.
SET_BYTES = 400 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=[LEVELS[0]])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.dtype}")
    for name, shape in SHAPES.items():
        one = torch.randn(shape, dtype=dtype)
        weights = [one, *(one.clone() for _ in range(SET_BYTES // one.nbytes))]
        for rows in arguments.rows:
            hidden = torch.randn(rows, shape[1], dtype=dtype)
            used = weights[: max(2, len(weights) // rows)] if rows > 16 else weights
            ways = {level: lambda w, level=level, x=hidden: multiply(x, w, level=level) for level in arguments.levels}
            # A lone row of the stock bf16 product is quicker twice.
            ways["stock"] = lambda w, x=hidden: functional.linear(x.expand(2, -1) if len(x) == 1 else x, w)
            with torch.inference_mode():
                runs = {way: lambda used=used, way=way, ways=ways: [ways[way](w) for w in used] for way in ways}
                seconds = alternate(runs, arguments.rounds)
            for way, median in seconds.items():
                each = median / len(used)
                print(
                    f"{name}, {rows} rows, {way}: {one.nbytes / each / 1e9:.1f} GB/s, "
                    f"{2 * rows * one.numel() / each / 1e9:.0f} GFLOP/s, {seconds['stock'] / median:.2f} x stock"
                )


if __name__ == "__main__":
    main()
