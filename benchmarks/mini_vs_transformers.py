"""Phi-4-Mini in bf16 at full size against transformers (SDPA): prefill of 512 tokens, decode of 32.

Both models run in one process and take turns; medians and the ratio of medians are printed. Load time and peak memory
come from a process of their own for each side.

    phi4 init mini /tmp/mini
    python benchmarks/mini_vs_transformers.py /tmp/mini --rounds 5
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from phi4.memory import peak_resident_bytes

PROMPT_TOKENS = 512
NEW_TOKENS = 32

# One measurement: seconds of prefill, seconds of decode.
Timed = tuple[float, float]


def load_ours(directory: Path) -> Callable[[], Timed]:
    from phi4.checkpoint.weights import load_model
    from phi4.engine.engine import Engine
    from phi4.engine.limits import SchedulerLimits
    from phi4.engine.request import Request
    from phi4.engine.sampling import Sampling
    from phi4.inputs import ModelInputs

    engine = Engine(load_model(directory).model, (), SchedulerLimits(reuse_prefixes=False))
    request = Request(ModelInputs(prompt()), Sampling(max_tokens=NEW_TOKENS + 1))

    def run() -> Timed:
        started = time.perf_counter()
        tokens = iter(engine.submit(request))
        next(tokens)
        first = time.perf_counter()
        assert sum(1 for _ in tokens) == NEW_TOKENS
        return first - started, time.perf_counter() - first

    return run


def load_theirs(directory: Path) -> Callable[[], Timed]:
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    ids = torch.tensor([prompt()])

    @torch.inference_mode()
    def run() -> Timed:
        cache = DynamicCache(config=model.config)
        started = time.perf_counter()
        token = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)
        first = time.perf_counter()
        for _ in range(NEW_TOKENS):
            token = model(token[None], past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)
        return first - started, time.perf_counter() - first

    return run


def prompt() -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(0, 199_998, (PROMPT_TOKENS,), generator=generator).tolist())


SIDES = {"phi4": load_ours, "transformers": load_theirs}


def load_alone(side: str, directory: Path) -> None:
    """Loads one side, runs it once and prints seconds and peak memory; called in a process of its own."""
    started = time.perf_counter()
    run = SIDES[side](directory)
    loaded = time.perf_counter() - started
    run()
    peak = peak_resident_bytes()
    print(json.dumps({"load_s": loaded, "peak_bytes": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load-alone", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load_alone:
        load_alone(arguments.load_alone, arguments.directory)
        return

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for side in [*SIDES, *SIDES]:
        command = [sys.executable, __file__, str(arguments.directory), "--load-alone", side]
        result = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        print(
            f"{side:13} load {result['load_s']:6.2f} s, peak memory {result['peak_bytes'] / 2**30:5.2f} GiB", flush=True
        )

    runs = {side: load(arguments.directory) for side, load in SIDES.items()}
    times: dict[str, list[Timed]] = {side: [] for side in SIDES}
    for round_number in range(arguments.rounds + 1):
        for side, run in runs.items():
            timed = run()
            if round_number > 0:  # the first round warms up
                times[side].append(timed)
            print(f"round {round_number} {side:13} prefill {timed[0]:6.2f} s, decode {timed[1]:6.2f} s", flush=True)

    for index, (name, tokens) in enumerate({"prefill": PROMPT_TOKENS, "decode": NEW_TOKENS}.items()):
        medians = {side: statistics.median(timed[index] for timed in values) for side, values in times.items()}
        rates = ", ".join(f"{side} {tokens / seconds:.2f} tokens/s" for side, seconds in medians.items())
        print(f"{name}: {rates}, ratio {medians['transformers'] / medians['phi4']:.3f}")


if __name__ == "__main__":
    main()
