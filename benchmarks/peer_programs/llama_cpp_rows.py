"""llama.cpp through llama-cpp-python, for peers.py; the weights are a GGUF file."""

import os
import time

import llama_cpp
import numpy as np
from measure import Prompts, Sizes, read_arguments, report


def open_context(path: str, sizes: Sizes) -> tuple[object, object]:
    """Loads the file and makes a context with a sequence for each row."""
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    together = sizes.rows * (sizes.decode_prompt_tokens + sizes.new_tokens + 1)
    settings.n_ctx = max(sizes.prompt_tokens + 1, together) + 256
    settings.n_batch = max(sizes.prompt_tokens, sizes.rows * sizes.decode_prompt_tokens)
    settings.n_seq_max = sizes.rows
    settings.kv_unified = True
    settings.n_threads = settings.n_threads_batch = os.cpu_count()
    return model, llama_cpp.llama_init_from_model(model, settings)


def fill(batch: object, pieces: Prompts, start: int) -> None:
    """Lays pieces end to end, one of each sequence, and asks for the scores behind the last token of each."""
    batch.n_tokens = 0
    for row, piece in enumerate(pieces):
        for position, token in enumerate(piece, start=start):
            place = batch.n_tokens
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
            batch.logits[place] = position == start + len(piece) - 1
            batch.n_tokens += 1


def main() -> None:
    path, sizes = read_arguments()
    llama_cpp.llama_backend_init()
    model, context = open_context(path, sizes)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(max(sizes.prompt_tokens, sizes.rows * sizes.decode_prompt_tokens), 0, sizes.rows)

    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        pieces, start, times = prompts, 0, []
        for _ in range(steps + 1):
            fill(batch, pieces, start)
            if llama_cpp.llama_decode(context, batch):
                raise RuntimeError("llama_decode failed")
            asked = [place for place in range(batch.n_tokens) if batch.logits[place]]
            start += len(pieces[0])
            scores = [llama_cpp.llama_get_logits_ith(context, place) for place in asked]
            pieces = [[int(np.ctypeslib.as_array(row, shape=(vocabulary,)).argmax())] for row in scores]
            times.append(time.perf_counter())
        return times[0], times[-1]

    report(llama_cpp.__version__, sizes, run)


if __name__ == "__main__":
    main()
