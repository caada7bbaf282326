"""How fast products with weights of 4 and 8 bits are, against bf16 and against what the machine can do at best.

python benchmarks/quantised_linear.py --rows 1 16 512
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import torch
from timing import alternate

from phi4.kernels.instructions import LEVELS
from phi4.kernels.linear import multiply
from phi4.kernels.quantised import PackedWeight, multiply_packed

# Outputs and inputs of Phi-4-Mini's linears and of its head.
SHAPES = {
    "qkv": (5120, 3072),
    "gate_up": (16384, 3072),
    "down": (3072, 8192),
    "head": (200064, 3072),
}
# Matrices of a shape together exceed the caches.
SET_BYTES = 300 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 512])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["qkv", "gate_up", "down"])
    parser.add_argument("--bits", type=int, nargs="+", choices=(4, 8), default=[4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    read, operations = floors(arguments.threads)
    print(f"{LEVELS[0]}, {arguments.threads} threads; reads {read:.1f} GB/s, {operations:.3f} TOPS of 8 bits")
    for name in arguments.shapes:
        for rows in arguments.rows:
            report(name, rows, arguments.bits, arguments.rounds, read, operations)


def floors(threads: int) -> tuple[float, float]:
    """GB/s that a loop reads from memory, and 10^12 operations of 8 bits a second of one that needs none."""
    with tempfile.TemporaryDirectory() as folder:
        program, source = f"{folder}/floors", Path(__file__).with_name("floors.cpp")
        subprocess.run(["c++", "-O3", "-march=native", "-fopenmp", str(source), "-o", program], check=True)
        result = subprocess.run([program, str(threads)], capture_output=True, text=True, check=True)
    read, operations = map(float, result.stdout.split())
    return read, operations


def report(name: str, rows: int, all_bits: list[int], rounds: int, read: float, operations: float) -> None:
    """Times the products of one shape in turns, and prints a line for each."""
    outputs, inputs = SHAPES[name]
    hidden = torch.randn(rows, inputs, dtype=torch.bfloat16)
    runs, sizes = {}, {}
    for bits in (16, *all_bits):
        one = random_weight(outputs, inputs, bits)
        sizes[f"{bits} bits"] = num_bytes(one)
        copies = 1 if rows > 64 else -(-SET_BYTES // num_bytes(one))
        weights = [one, *(clone(one) for _ in range(copies - 1))]
        runs[f"{bits} bits"] = lambda weights=weights: [product(hidden, weight) for weight in weights] and len(weights)
    with torch.inference_mode():
        counts = {way: run() for way, run in runs.items()}
        seconds = {way: median / counts[way] for way, median in alternate(runs, rounds).items()}
    for way, each in seconds.items():
        speed, work = sizes[way] / each / 1e9, 2 * rows * outputs * inputs / each / 1e12
        print(
            f"{name}, {rows} rows, {way}: {1e3 * each:.3f} ms, {speed:.1f} GB/s ({speed / read:.0%} of reading), "
            f"{work:.3f} TOPS ({work / operations:.0%} of 8 bits), {seconds['16 bits'] / each:.2f} x bf16",
            flush=True,
        )


def random_weight(outputs: int, inputs: int, bits: int) -> torch.Tensor | PackedWeight:
    """A weight matrix of any values."""
    if bits == 16:
        return torch.randn(outputs, inputs, dtype=torch.bfloat16)
    blocks, groups = outputs // 16, inputs // 32
    codes = torch.randint(256, (blocks, groups, bits, 16, 4), dtype=torch.uint8)
    steps = torch.full((blocks, groups, 2, 16), 10, dtype=torch.uint8) if bits == 4 else None
    return PackedWeight(codes, steps, torch.rand(outputs))


def clone(weight: torch.Tensor | PackedWeight) -> torch.Tensor | PackedWeight:
    if isinstance(weight, torch.Tensor):
        return weight.clone()
    return PackedWeight(weight.codes.clone(), None if weight.steps is None else weight.steps.clone(), weight.scales)


def num_bytes(weight: torch.Tensor | PackedWeight) -> int:
    if isinstance(weight, torch.Tensor):
        return weight.nbytes
    return sum(part.nbytes for part in (weight.codes, weight.steps, weight.scales) if part is not None)


def product(hidden: torch.Tensor, weight: torch.Tensor | PackedWeight) -> torch.Tensor:
    return multiply(hidden, weight) if isinstance(weight, torch.Tensor) else multiply_packed(hidden, weight)


if __name__ == "__main__":
    main()
