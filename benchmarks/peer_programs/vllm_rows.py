"""vLLM on the CPU, for peers.py; the weights are a directory, bf16 or with the 8 bits of vllm_int8_weights.py."""

# ruff: noqa: E402 - what vLLM reads when it is imported is set first

import os
import sys
import time
from pathlib import Path

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs in this process
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "OMP_NUM_THREADS": str(os.cpu_count()),
}
# vLLM's manual asks for these: OpenMP comes with its package, tcmalloc with libtcmalloc-minimal4.
PRELOADED = (Path(sys.prefix) / "lib/libiomp5.so", Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"))

if not SETTINGS.items() <= os.environ.items():
    preloaded = ":".join(str(path) for path in PRELOADED if path.exists())
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS, "LD_PRELOAD": preloaded})

import vllm
from measure import Prompts, read_arguments, report
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.inputs import TokensPrompt


def main() -> None:
    weights, sizes = read_arguments()
    longest = max(sizes.prompt_tokens, sizes.decode_prompt_tokens + sizes.new_tokens) + 1
    together = max(sizes.prompt_tokens, sizes.rows * sizes.decode_prompt_tokens)
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            weights,
            dtype="bfloat16",
            max_model_len=longest,
            max_num_seqs=sizes.rows,
            max_num_batched_tokens=max(1024, together),  # all rows begin in one step
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
    )

    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        sampling = SamplingParams(temperature=0.0, max_tokens=steps + 1, ignore_eos=True, detokenize=False)
        for row, ids in enumerate(prompts):
            engine.add_request(str(row), TokensPrompt(prompt_token_ids=ids), sampling)
        begun: set[str] = set()
        first = 0.0
        while engine.has_unfinished_requests():
            outputs = engine.step()
            now = time.perf_counter()
            new = {output.request_id for output in outputs} - begun
            if new:
                begun |= new
                first = now
        return first, now

    report(vllm.__version__, sizes, run)


if __name__ == "__main__":
    main()
