"""Logits of llama.cpp for quantised_quality.py: a GGUF file, a JSON file of windows of token ids, and where they go.

They are written as float32 of [tokens, vocabulary], one window behind the other.
"""

import json
import os
import sys

import llama_cpp
import numpy as np


def main() -> None:
    path, windows_path, destination = sys.argv[1:]
    with open(windows_path) as file:
        windows = json.load(file)
    longest = max(map(len, windows))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = longest
    settings.n_threads = settings.n_threads_batch = os.cpu_count()
    context = llama_cpp.llama_init_from_model(model, settings)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(longest, 0, 1)
    with open(destination, "wb") as results:
        for window in windows:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            batch.n_tokens = len(window)
            for place, token in enumerate(window):
                batch.token[place], batch.pos[place], batch.logits[place] = token, place, True
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            if llama_cpp.llama_decode(context, batch):
                raise RuntimeError("llama_decode failed")
            logits = llama_cpp.llama_get_logits(context)
            np.ctypeslib.as_array(logits, shape=(len(window), vocabulary)).tofile(results)


if __name__ == "__main__":
    main()
