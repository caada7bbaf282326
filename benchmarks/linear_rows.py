"""How fast the stock bf16 product reads a weight matrix for one row and for two.

python benchmarks/linear_rows.py
"""

import torch
from timing import alternate
from torch.nn import functional

# Weights larger than the caches together: the layers of Phi-4-Mini, twelve of each shape.
SHAPES = ((16384, 3072), (3072, 8192), (5120, 3072), (3072, 3072))


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    weights = [torch.randn(shape, dtype=torch.bfloat16) for shape in SHAPES for _ in range(12)]
    num_bytes = sum(weight.nbytes for weight in weights)

    def read_all(rows: int) -> None:
        for weight in weights:
            functional.linear(torch.ones(rows, weight.shape[1], dtype=weight.dtype), weight)

    seconds = alternate({f"{rows} rows": lambda rows=rows: read_all(rows) for rows in (1, 2, 4)}, rounds=9)
    for name, median in seconds.items():
        print(f"{name}: {num_bytes / median / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
