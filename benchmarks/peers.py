"""This project's engine and its peers on the same weights in one go: prefill, decode of one row, decode of many.

Every round runs each peer once, in a process of its own, one after the other: it loads, warms up and is timed. Medians
are written as a table. A peer whose package its Python cannot import is listed as not installed. Peers that need their
own environments get them by name:

    phi4 init mini /tmp/mini
    python benchmarks/peers.py /tmp/mini --rounds 3 --python llama_cpp=/path/to/python --out peers.md

llama.cpp reads GGUF files; they are written once into `--work`, its 4-bit one by its own tool. A quantised form of the
same weights, for this project's engine, is added with `--quantised DIRECTORY`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peer_programs.gguf_file import write_gguf

PROGRAMS = Path(__file__).parent / "peer_programs"
GGUF_TYPES = ("BF16", "Q4_K_M")


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        name: for people.
        package: what its Python must be able to import.
        program: of `peer_programs/`.
        weights: what the program loads.
    """

    name: str
    package: str
    program: str
    weights: Path


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


def gguf_files(directory: Path, work: Path, python: str) -> dict[str, Path]:
    """Writes what is not there yet: the weights in bf16, and what llama.cpp's tool makes of them."""
    work.mkdir(parents=True, exist_ok=True)
    files = {kind: work / f"{directory.resolve().name}-{kind}.gguf" for kind in GGUF_TYPES}
    source = files["BF16"]
    for kind, path in files.items():
        if path.exists():
            continue
        partial = path.with_suffix(".partial")
        if kind == "BF16":
            write_gguf(directory, partial)
        else:
            command = [python, str(PROGRAMS / "llama_cpp_quantize.py"), str(source), str(partial), kind]
            subprocess.run(command, check=True, capture_output=True)
        partial.rename(path)
    return files


def run_once(peer: Peer, python: str, sizes: dict[str, int], results: Results) -> Results:
    """Adds a round of one peer; one that fails is not run again, and the table says why."""
    if results.failure:
        return results
    command = [python, str(PROGRAMS / peer.program), str(peer.weights), json.dumps(sizes)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        lines = finished.stderr.strip().splitlines()
        return Results(results.version, {}, f"failed: {lines[-1] if lines else finished.returncode}")
    report = json.loads(finished.stdout.splitlines()[-1])
    print(
        f"{peer.name}: " + ", ".join(f"{name} {value:.2f} s" for name, value in report["seconds"].items()), flush=True
    )
    seconds = {name: [*results.seconds.get(name, []), value] for name, value in report["seconds"].items()}
    return Results(report["version"], seconds)


def table(peers: Sequence[Peer], results: dict[str, Results], sizes: dict[str, int]) -> str:
    """Tokens per second in Markdown."""
    tokens = {
        "prefill": sizes["prompt_tokens"],
        "decode": sizes["new_tokens"],
        "decode_rows": sizes["new_tokens"] * sizes["rows"],
    }
    lines = [
        f"| tokens/s | version | prefill {sizes['prompt_tokens']} | decode 1 row | decode {sizes['rows']} rows |",
        "|---|---|---|---|---|",
    ]
    for peer in peers:
        own = results[peer.name]
        if own.failure:
            lines.append(f"| {peer.name} | {own.failure} | | | |")
        else:
            rates = (f"{count / statistics.median(own.seconds[name]):.2f}" for name, count in tokens.items())
            lines.append(f"| {peer.name} | {own.version} | {' | '.join(rates)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--quantised", type=Path, help="directory with a quantised form of the same weights")
    parser.add_argument("--python", action="append", default=[], metavar="PACKAGE=PATH", help="repeatable")
    parser.add_argument("--only", nargs="+", default=[""], help="peers with one of these in their names")
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="for GGUF files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--out", type=Path, help="where the table goes, too")
    arguments = parser.parse_args()
    sizes = {
        "prompt_tokens": arguments.prompt_tokens,
        "decode_prompt_tokens": 32,
        "new_tokens": arguments.new_tokens,
        "rows": arguments.rows,
    }
    pythons = dict(named.split("=", 1) for named in arguments.python)

    def python_of(package: str) -> str:
        return pythons.get(package, sys.executable)

    peers = [Peer("phi4, bf16", "phi4", "phi4_engine.py", arguments.directory)]
    if arguments.quantised:
        peers.append(Peer("phi4, quantised", "phi4", "phi4_engine.py", arguments.quantised))
    peers.append(Peer("transformers, bf16", "transformers", "transformers_sdpa.py", arguments.directory))
    files = dict.fromkeys(GGUF_TYPES, arguments.work)
    if is_installed(python_of("llama_cpp"), "llama_cpp"):
        files = gguf_files(arguments.directory, arguments.work, python_of("llama_cpp"))
    peers += [Peer(f"llama.cpp, {kind}", "llama_cpp", "llama_cpp_rows.py", path) for kind, path in files.items()]
    peers = [peer for peer in peers if any(part in peer.name for part in arguments.only)]
    results = {
        peer.name: Results("", {}, "" if is_installed(python_of(peer.package), peer.package) else "not installed")
        for peer in peers
    }
    for _ in range(arguments.rounds):
        for peer in peers:
            results[peer.name] = run_once(peer, python_of(peer.package), sizes, results[peer.name])
    text = table(peers, results, sizes)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
