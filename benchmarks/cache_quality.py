"""How far a model with a cache of 8 bits is from itself in fp32 with an exact cache, on text that is read in windows.

python benchmarks/cache_quality.py nano --text FILE...
"""

import argparse
from pathlib import Path

import torch
from quantised_quality import Scores

from phi4 import Assistant
from phi4.engine.whole_pass import embed_whole, whole_segment
from phi4.inputs import ModelInputs
from phi4.model.paged_cache import PagedCache
from phi4.model.step import Segment

BLOCK_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--window", type=int, default=512, help="tokens")
    parser.add_argument("--windows", type=int, default=2, help="from each file")
    arguments = parser.parse_args()
    exact: Scores | None = None
    for dtype, cache_dtype in (
        (torch.float32, torch.float32),
        (torch.float32, torch.int8),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.int8),
    ):
        assistant = Assistant.load(arguments.model, dtype=dtype, packs=())
        cuts = [cut for file in arguments.text for cut in windows(assistant, file, arguments.window, arguments.windows)]
        scored = [read(assistant, cut, cache_dtype) for cut in cuts]
        scores = Scores(scored, [torch.tensor(cut) for cut in cuts])
        exact = exact or scores
        largest = max((a.exp() * (a - b)).sum(-1).max().item() for a, b in zip(exact.windows, scored, strict=True))
        print(
            f"{dtype} weights, {cache_dtype} cache: perplexity {scores.perplexity:.3f}, "
            f"KL {exact.divergence(scores):.5f}, at most {largest:.3f}, "
            f"same best token {exact.agreement(scores):.1%} of {sum(map(len, cuts))}",
            flush=True,
        )


def windows(assistant: Assistant, file: Path, length: int, count: int) -> list[list[int]]:
    """The first windows of a text, as token ids."""
    text = file.read_text(errors="replace")[: 20 * length * count]
    ids = assistant.processor.tokenizer.encode(text, allow_special=False)
    cuts = [ids[start : start + length] for start in range(0, length * count, length)]
    return [cut for cut in cuts if len(cut) > 1]


@torch.inference_mode()
def read(assistant: Assistant, token_ids: list[int], cache_dtype: torch.dtype) -> torch.Tensor:
    """Log-probabilities at every place of a window that goes through a cache, [tokens, vocabulary]."""
    model, inputs = assistant.loaded.model, ModelInputs(tuple(token_ids), ())
    whole = whole_segment(model, inputs)
    num_blocks = -(-whole.length // BLOCK_TOKENS)
    cache = PagedCache(model.decoder_config, num_blocks, BLOCK_TOKENS, cache_dtype, model.device)
    segment = Segment(whole.length, 0, whole.adapter, whole.rotary, cache.row(range(num_blocks)))
    logits = model.logits(model(embed_whole(model, inputs), model.step([segment])))
    return torch.log_softmax(logits.float(), -1)


if __name__ == "__main__":
    main()
