"""llama.cpp's decoding of one row behind a long context, for peers.py; the weights are a GGUF file.

How long a token takes does not depend on what the cache holds, and reading 32K tokens would take llama.cpp the better
part of an hour. So it reads one piece, and that piece's state is loaded again and again, each time at the next
positions, until the cache is full.
"""

import ctypes
import os
import random
import time

import llama_cpp
import numpy as np
from llama_cpp_rows import fill
from measure import FIRST_ID, LAST_ID, Sizes, read_arguments, report_context

CACHE_TYPES = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}
PIECE = 256
ROW, COPIED = 0, 1  # sequences: the one that grows, and the one that states are loaded into
# A sequence's state begins with four numbers, then its cells, each a position, a count of sequences and a sequence.
HEADER, CELL = 4, 3


def open_context(path: str, sizes: Sizes) -> object:
    """Loads the file and makes a context with room for the history and the new tokens of every pass."""
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = sizes.context_tokens + sizes.new_tokens + PIECE
    settings.n_batch = PIECE
    settings.n_seq_max = 2
    settings.kv_unified = True
    settings.type_k = settings.type_v = CACHE_TYPES[sizes.cache_type]
    settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    settings.n_threads = settings.n_threads_batch = os.cpu_count()
    return llama_cpp.llama_init_from_model(model, settings)


def fill_cache(context: object, batch: object, tokens: int) -> None:
    """Reads a piece and gives the row its keys and values as often as the row has pieces."""
    fill(batch, [[], [random.randint(FIRST_ID, LAST_ID) for _ in range(PIECE)]], 0)
    decode(context, batch)
    state = (ctypes.c_uint8 * llama_cpp.llama_state_seq_get_size(context, COPIED))()
    size = llama_cpp.llama_state_seq_get_data(context, state, len(state), COPIED)
    numbers = np.frombuffer(state, dtype=np.int32, count=HEADER + CELL * PIECE)
    positions = numbers[HEADER::CELL]
    if not np.array_equal(positions, np.arange(PIECE)):
        raise RuntimeError("llama.cpp writes a sequence's state otherwise than this program reads it")
    memory = llama_cpp.llama_get_memory(context)
    for first in range(0, tokens, PIECE):
        positions[:] = np.arange(first, first + PIECE)
        if llama_cpp.llama_state_seq_set_data(context, state, size, COPIED) == 0:
            raise RuntimeError("llama_state_seq_set_data failed")
        llama_cpp.llama_memory_seq_cp(memory, COPIED, ROW, -1, -1)
        llama_cpp.llama_memory_seq_rm(memory, COPIED, -1, -1)


def decode(context: object, batch: object) -> None:
    if llama_cpp.llama_decode(context, batch):
        raise RuntimeError("llama_decode failed")


def main() -> None:
    path, sizes = read_arguments()
    llama_cpp.llama_backend_init()
    context = open_context(path, sizes)
    batch = llama_cpp.llama_batch_init(PIECE, 0, 1)
    fill_cache(context, batch, sizes.context_tokens)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(llama_cpp.llama_get_model(context)))

    def run() -> float:
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(context), ROW, sizes.context_tokens, -1)
        token = FIRST_ID
        started = time.perf_counter()
        for position in range(sizes.context_tokens, sizes.context_tokens + sizes.new_tokens):
            fill(batch, [[token]], position)
            decode(context, batch)
            scores = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, 0), shape=(vocabulary,))
            token = int(scores.argmax())
        return time.perf_counter() - started

    report_context(llama_cpp.__version__, run)


if __name__ == "__main__":
    main()
