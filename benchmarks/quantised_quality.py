"""How far quantised models are from the one that they were made from, on text that is read in windows.

python benchmarks/quantised_quality.py nano ./nano-4bit ./nano-mixed --text FILE... --llama-cpp PYTHON

With the last option, llama.cpp quantises and scores the first model too: its Q4_K_M is compared with its own F32, and
that with the first model, where a wrong conversion would be seen. With `--dtype float32` both are the same.
"""

import argparse
import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
import torch
from peer_weights import PROGRAMS, prepare

from phi4 import Assistant
from phi4.checkpoint import hub
from phi4.checkpoint.inspect import inspect_checkpoint
from phi4.engine.whole_pass import score
from phi4.inputs import ModelInputs
from phi4.processing.tokenizer import Tokenizer


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of some windows of text.

    Attributes:
        windows: for each, [tokens, vocabulary].
        token_ids: for each, [tokens].
    """

    windows: list[torch.Tensor]
    token_ids: list[torch.Tensor]

    @property
    def perplexity(self) -> float:
        """Of every token but the first of its window."""
        own = [w[:-1].gather(1, t[1:, None]) for w, t in zip(self.windows, self.token_ids, strict=True)]
        return math.exp(-torch.cat(own).mean().item())

    def divergence(self, other: "Scores") -> float:
        """Mean KL divergence of the other's distributions from these."""
        parts = [(a.exp() * (a - b)).sum(-1) for a, b in zip(self.windows, other.windows, strict=True)]
        return torch.cat(parts).mean().item()

    def agreement(self, other: "Scores") -> float:
        """Share of places with the same best token."""
        parts = [a.argmax(-1) == b.argmax(-1) for a, b in zip(self.windows, other.windows, strict=True)]
        return torch.cat(parts).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="the first is what the others are compared with")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--window", type=int, default=384, help="tokens")
    parser.add_argument("--windows", type=int, default=4, help="from each file")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of activations")
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="a Python that has llama-cpp-python")
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="for GGUF files")
    arguments = parser.parse_args()
    windows = cut(arguments.models[0], arguments.text, arguments.window, arguments.windows)
    first: Scores | None = None
    for model in arguments.models:
        scores = read(model, windows, getattr(torch, arguments.dtype))
        first = first or scores
        compare(f"{model}, {bits_of_directory(hub.resolve(model)):.2f} bits", first, scores)
    if arguments.llama_cpp:
        source = hub.resolve(arguments.models[0])
        files = {kind: prepare(kind, source, arguments.work, arguments.llama_cpp) for kind in ("F32", "Q4_K_M")}
        exact = read_with_llama_cpp(files["F32"], windows, arguments.llama_cpp)
        assert first is not None
        compare("llama.cpp, F32, beside the first", first, exact)
        scores = read_with_llama_cpp(files["Q4_K_M"], windows, arguments.llama_cpp)
        compare(f"llama.cpp, Q4_K_M, {bits_of_gguf(files['Q4_K_M']):.2f} bits, beside its F32", exact, scores)


def compare(name: str, first: Scores, scores: Scores) -> None:
    """Prints how far scores are from the first."""
    print(
        f"{name}: perplexity {scores.perplexity:.3f}, KL {first.divergence(scores):.4f}, "
        f"same best token {first.agreement(scores):.1%} of {sum(map(len, scores.token_ids))}",
        flush=True,
    )


def cut(model: str, files: list[Path], window: int, windows: int) -> list[list[int]]:
    """The first windows of every file, as token ids."""
    tokenizer = Tokenizer.load(hub.resolve(model))
    texts = [path.read_text(errors="replace")[: 20 * window * windows] for path in files]
    token_ids = [tokenizer.encode(text, allow_special=False) for text in texts]
    cuts = [ids[start : start + window] for ids in token_ids for start in range(0, window * windows, window)]
    return [ids for ids in cuts if len(ids) > 1]


def read(model: str, windows: list[list[int]], dtype: torch.dtype) -> Scores:
    """Scores windows with a model of this project."""
    assistant = Assistant.load(model, dtype=dtype, packs=())
    scored = [score(assistant.loaded.model, [ModelInputs(tuple(ids), ())])[0].float() for ids in windows]
    return Scores([torch.log_softmax(one, -1) for one in scored], list(map(torch.tensor, windows)))


def read_with_llama_cpp(path: Path, windows: list[list[int]], python: str) -> Scores:
    """Scores windows with a GGUF file, in a process of its own."""
    program = PROGRAMS / "llama_cpp_logits.py"
    with TemporaryDirectory() as work:
        described, results = Path(work) / "windows.json", Path(work) / "logits"
        described.write_text(json.dumps(windows))
        command = [python, str(program), str(path), str(described), str(results)]
        subprocess.run(command, check=True, capture_output=True)
        logits = torch.from_numpy(np.fromfile(results, np.float32)).view(sum(map(len, windows)), -1)
    parts = logits.split([len(ids) for ids in windows])
    return Scores([torch.log_softmax(part, -1) for part in parts], list(map(torch.tensor, windows)))


def bits_of_directory(directory: Path) -> float:
    """Bits that a directory takes for each weight, norms included."""
    report = inspect_checkpoint(directory)
    return 8 * report.total_bytes / report.total_values


def bits_of_gguf(path: Path) -> float:
    """Bits that the tensors of a GGUF file take for each weight, norms included."""
    tensors = gguf.GGUFReader(path).tensors
    return 8 * sum(int(tensor.n_bytes) for tensor in tensors) / sum(int(tensor.n_elements) for tensor in tensors)


if __name__ == "__main__":
    main()
