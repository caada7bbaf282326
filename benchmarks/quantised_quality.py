"""How far quantised models are from the one that they were made from, on text that is read in windows.

python benchmarks/quantised_quality.py nano ./nano-4bit ./nano-mixed --text FILE...
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from phi4 import Assistant
from phi4.engine.whole_pass import score
from phi4.inputs import ModelInputs


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
    arguments = parser.parse_args()
    first: Scores | None = None
    for model in arguments.models:
        scores = read(model, arguments.text, arguments.window, arguments.windows, getattr(torch, arguments.dtype))
        first = first or scores
        print(
            f"{model}: perplexity {scores.perplexity:.3f}, KL {first.divergence(scores):.4f}, "
            f"same best token {first.agreement(scores):.1%} of {sum(map(len, scores.token_ids))}",
            flush=True,
        )


def read(model: str, files: list[Path], window: int, windows: int, dtype: torch.dtype) -> Scores:
    """Scores the first windows of every file."""
    assistant = Assistant.load(model, dtype=dtype, packs=())
    texts = [path.read_text(errors="replace")[: 20 * window * windows] for path in files]
    token_ids = [assistant.processor.tokenizer.encode(text, allow_special=False) for text in texts]
    cuts = [ids[start : start + window] for ids in token_ids for start in range(0, window * windows, window)]
    cuts = [ids for ids in cuts if len(ids) > 1]
    scored = [score(assistant.loaded.model, [ModelInputs(tuple(ids), ())])[0].float() for ids in cuts]
    return Scores([torch.log_softmax(one, -1) for one in scored], list(map(torch.tensor, cuts)))


if __name__ == "__main__":
    main()
