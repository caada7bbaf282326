"""This project's engine and its peers on the same weights in one go: prefill, decode of one row, of many, behind much.

Every round runs each peer once, in a process of its own, one after the other: it loads, warms up and is timed. Medians
are written as a table; a cell is empty where a peer cannot be asked that. A peer whose package its Python cannot import
is listed as not installed. Each peer has an environment of its own, named by its package:

    phi4 init mini /tmp/mini
    phi4 quantize /tmp/mini /tmp/mini-4bit
    phi4 quantize /tmp/mini /tmp/mini-mixed --scheme mixed
    python benchmarks/peers.py /tmp/mini --quantised 4bit=/tmp/mini-4bit --quantised mixed=/tmp/mini-mixed \\
        --rounds 3 --out peers.md \\
        --python llama_cpp=PYTHON --python vllm=PYTHON --python openvino_genai=PYTHON --python mistralrs=PYTHON \\
        --python onnxruntime_genai=PYTHON

How to make the environments stands in docs/bench.md. The peers' forms of the weights are written once into `--work`, by
their own tools where they have some. The rows of keys and values time decoding behind `--context-tokens`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer_weights import PROGRAMS, is_made_from, prepare

BF16, SCHEMES = "directory", ("4bit", "mixed")  # weights that are given; all others are forms of peer_weights.py


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        name: for people.
        package: what its Python must be able to import.
        program: of `peer_programs/`.
        weights: what the program loads: `BF16`, one of `SCHEMES` or a form of `peer_weights.py`.
        cache_type: of keys and values, for a program that times decoding behind a long context.
    """

    name: str
    package: str
    program: str
    weights: str
    cache_type: str = ""


PEERS = (
    Peer("phi4, bf16", "phi4", "phi4_engine.py", BF16),
    Peer("phi4, 4bit", "phi4", "phi4_engine.py", "4bit"),
    Peer("phi4, mixed", "phi4", "phi4_engine.py", "mixed"),
    Peer("phi4, 4bit, keys and values int8", "phi4", "phi4_context.py", "4bit", "int8"),
    Peer("transformers, bf16", "transformers", "transformers_sdpa.py", BF16),
    Peer("llama.cpp, BF16", "llama_cpp", "llama_cpp_rows.py", "BF16"),
    Peer("llama.cpp, Q4_K_M", "llama_cpp", "llama_cpp_rows.py", "Q4_K_M"),
    Peer("llama.cpp, Q4_0", "llama_cpp", "llama_cpp_rows.py", "Q4_0"),
    Peer("llama.cpp, Q8_0", "llama_cpp", "llama_cpp_rows.py", "Q8_0"),
    Peer("llama.cpp, Q4_K_M, keys and values f16", "llama_cpp", "llama_cpp_context.py", "Q4_K_M", "f16"),
    Peer("llama.cpp, Q4_K_M, keys and values q8_0", "llama_cpp", "llama_cpp_context.py", "Q4_K_M", "q8_0"),
    Peer("vLLM, bf16", "vllm", "vllm_rows.py", BF16),
    Peer("vLLM, int8", "vllm", "vllm_rows.py", "vLLM int8"),
    Peer("OpenVINO GenAI, int4", "openvino_genai", "openvino_rows.py", "OpenVINO int4"),
    Peer("mistral.rs, Q4K", "mistralrs", "mistralrs_rows.py", "mistral.rs Q4K"),
    Peer("ONNX Runtime GenAI, int4", "onnxruntime_genai", "onnxruntime_rows.py", "ONNX Runtime int4"),
)


@dataclass(frozen=True)
class Results:
    """What the rounds of one peer gave: its version and seconds by what was measured, or why there are none."""

    version: str
    seconds: dict[str, list[float]]
    failure: str = ""


def is_installed(python: str, package: str) -> bool:
    """Whether a Python finds a package, without importing it."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def last_line(text: str, otherwise: object) -> str:
    """What a failed command said last, fit for a cell."""
    lines = text.strip().splitlines()
    return f"failed: {lines[-1] if lines else otherwise}".replace("|", "/")


def run_once(peer: Peer, python: str, weights: Path, sizes: Mapping[str, int], results: Results) -> Results:
    """Adds a round of one peer; one that fails is not run again, and the table says why."""
    if results.failure:
        return results
    task = json.dumps({**sizes, "cache_type": peer.cache_type})
    command = [python, str(PROGRAMS / peer.program), str(weights), task]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        return Results(results.version, {}, last_line(finished.stderr, finished.returncode))
    report = json.loads(finished.stdout.splitlines()[-1])
    print(
        f"{peer.name}: " + ", ".join(f"{name} {value:.2f} s" for name, value in report["seconds"].items()), flush=True
    )
    seconds = {name: [*results.seconds.get(name, []), value] for name, value in report["seconds"].items()}
    return Results(report["version"], seconds)


def table(results: Mapping[str, Results], sizes: Mapping[str, int]) -> str:
    """Tokens per second in Markdown."""
    columns = {
        "prefill": (f"prefill {sizes['prompt_tokens']}", sizes["prompt_tokens"]),
        "decode": ("decode 1 row", sizes["new_tokens"]),
        "decode_rows": (f"decode {sizes['rows']} rows", sizes["new_tokens"] * sizes["rows"]),
        "decode_context": (f"decode 1 row behind {sizes['context_tokens']}", sizes["new_tokens"]),
    }
    lines = [
        f"| tokens/s | version | {' | '.join(title for title, _ in columns.values())} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, own in results.items():
        rates = (
            f"{tokens / statistics.median(own.seconds[measured]):.2f}" if measured in own.seconds else ""
            for measured, (_, tokens) in columns.items()
        )
        lines.append(f"| {name} | {own.failure or own.version} | {' | '.join(rates)} |")
    return "\n".join(lines) + "\n"


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--quantised",
        action="append",
        default=[],
        metavar="SCHEME=PATH",
        help="the same weights, quantised; repeatable",
    )
    parser.add_argument("--python", action="append", default=[], metavar="PACKAGE=PATH", help="repeatable")
    parser.add_argument("--only", nargs="+", default=[""], help="peers with one of these in their names")
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="for the peers' forms of the weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context-tokens", type=int, default=32_768)
    parser.add_argument("--out", type=Path, help="where the table goes, too")
    return parser.parse_args()


def prepared(peers: Sequence[Peer], arguments: argparse.Namespace, python_of: Mapping[str, str]) -> dict[str, object]:
    """What each peer loads, by its name: a path, or the reason why there is none."""
    given: dict[str, object] = {BF16: arguments.directory, **dict.fromkeys(SCHEMES, "not given")}
    for scheme, path in (named.split("=", 1) for named in arguments.quantised):
        fits = is_made_from(Path(path), arguments.directory)
        given[scheme] = Path(path) if fits else f"{path} was made from other weights"
    weights: dict[str, object] = {}
    for peer in peers:
        python = python_of[peer.package]
        if not is_installed(python, peer.package):
            weights[peer.name] = "not installed"
        elif peer.weights in given:
            weights[peer.name] = given[peer.weights]
        else:
            try:
                weights[peer.name] = prepare(peer.weights, arguments.directory, arguments.work, python)
            except subprocess.CalledProcessError as error:
                weights[peer.name] = last_line(error.stderr, error.returncode)
    return weights


def main() -> None:
    arguments = read_arguments()
    sizes = {
        "prompt_tokens": arguments.prompt_tokens,
        "decode_prompt_tokens": 32,
        "new_tokens": arguments.new_tokens,
        "rows": arguments.rows,
        "context_tokens": arguments.context_tokens,
    }
    python_of = {peer.package: sys.executable for peer in PEERS}
    python_of |= dict(named.split("=", 1) for named in arguments.python)
    peers = [peer for peer in PEERS if any(part in peer.name for part in arguments.only)]
    weights = prepared(peers, arguments, python_of)
    results = {name: Results("", {}, "" if isinstance(found, Path) else str(found)) for name, found in weights.items()}
    for _ in range(arguments.rounds):
        for peer in peers:
            found = weights[peer.name]
            if isinstance(found, Path):
                results[peer.name] = run_once(peer, python_of[peer.package], found, sizes, results[peer.name])
    text = table(results, sizes)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
