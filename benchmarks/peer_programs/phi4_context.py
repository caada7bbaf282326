"""This project's decoding of one row behind a long context, for peers.py.

The cache holds random values instead of a prompt's: how long a token takes does not depend on them.
"""

import time
from pathlib import Path

import torch
from full_cache import full_cache
from measure import FIRST_ID, read_arguments, report_context

import phi4
from phi4.checkpoint.weights import load_model
from phi4.model.step import Segment, rotary_for

CACHE_TYPES = {"bf16": torch.bfloat16, "int8": torch.int8}


def main() -> None:
    weights, sizes = read_arguments()
    model = load_model(Path(weights)).model
    config = model.decoder_config
    last = sizes.context_tokens + sizes.new_tokens
    cache = full_cache(config, last, CACHE_TYPES[sizes.cache_type])
    row, rotary = cache.row(range(cache.num_blocks)), rotary_for(config, last)

    @torch.inference_mode()
    def run() -> float:
        token = torch.tensor([FIRST_ID])
        started = time.perf_counter()
        for position in range(sizes.context_tokens, last):
            step = model.step([Segment(1, position, None, rotary, row)])
            token = model.logits(model(model.embed(token), step)).argmax(-1)
        return time.perf_counter() - started

    report_context(phi4.__version__, run)


if __name__ == "__main__":
    main()
