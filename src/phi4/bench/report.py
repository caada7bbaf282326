"""Runs a benchmark of one model on this machine: its speed, and the limit of each number."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from phi4.assistant import Assistant
from phi4.bench.machine import Machine
from phi4.bench.speed import DECODE_PROMPT_TOKENS, Sizes, time_rounds
from phi4.bench.work import Work, decode_work, prefill_work, tensor_bytes, weight_bytes
from phi4.engine.language_model import LanguageModel
from phi4.kernels.instructions import LEVELS
from phi4.memory import peak_resident_bytes


@dataclass(frozen=True)
class Rate:
    """One speed.

    Attributes:
        rows: conversations at a time.
        tokens_per_s: of all rows, the median of the rounds.
        limit_tokens_per_s: what the machine allows at most.
        percent_of_limit: how near the speed is to that.
        bound: what the limit comes from, "bandwidth" or "products".
    """

    rows: int
    tokens_per_s: float
    limit_tokens_per_s: float
    percent_of_limit: float
    bound: str


@dataclass(frozen=True)
class Report:
    """What `phi4 bench --json` prints, under the names of these attributes.

    Attributes:
        model: as it was named.
        dtype: of the activations.
        device: where it ran.
        threads: of torch and of the kernels.
        kernels: instructions of the native kernels; None where plain torch does their work.
        torch: its version.
        rounds: how many the medians are of.
        load_s: from the name to a model that takes requests; the files may have been in memory before.
        peak_resident_bytes: of the process, from its start to the last token.
        tensor_bytes: of all weights and buffers, encoders and adapters included.
        step_bytes: of what a decoding step reads of them.
        prompt_tokens: of the prompt that `prefill` reads.
        new_tokens: of each row, timed by the other two.
        machine: what it can do at best.
        prefill: until the first token of one prompt.
        decode: of one row behind a short prompt.
        decode_rows: of many rows together.
    """

    model: str
    dtype: str
    device: str
    threads: int
    kernels: str | None
    torch: str
    rounds: int
    load_s: float
    peak_resident_bytes: int
    tensor_bytes: int
    step_bytes: int
    prompt_tokens: int
    new_tokens: int
    machine: Machine
    prefill: Rate
    decode: Rate
    decode_rows: Rate


def run_benchmark(
    name: str, load: Callable[[], Assistant], sizes: Sizes, rounds: int, progress: Callable[[int, int], None]
) -> Report:
    """Loads a model, times it, and measures the machine last, so that the peak of memory is the model's.

    Args:
        name: of the model, for the report.
        load: loads it.
        sizes: what is timed.
        rounds: that count; one more warms up.
        progress: called with the parts that are done and their number.

    Raises:
        InputError: the sizes do not fit the model's context.
    """
    started = time.perf_counter()
    model = load().loaded.model
    load_s = time.perf_counter() - started
    parts = rounds + 2  # the round that warms up, and the machine
    progress(0, parts)
    timings = time_rounds(model, sizes, rounds, lambda done: progress(done, parts))
    peak = peak_resident_bytes()
    machine = Machine.measure(model.device, model.dtype, multiplies_bytes(model))
    progress(parts, parts)
    # Each step attends to one token more than the last, so that the mean of them stands for all.
    history = DECODE_PROMPT_TOKENS + (sizes.new_tokens + 1) / 2
    return Report(
        model=name,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        threads=torch.get_num_threads(),
        kernels=LEVELS[0] if LEVELS else None,
        torch=torch.__version__,
        rounds=rounds,
        load_s=load_s,
        peak_resident_bytes=peak,
        tensor_bytes=tensor_bytes(model),
        step_bytes=weight_bytes(model),
        prompt_tokens=sizes.prompt_tokens,
        new_tokens=sizes.new_tokens,
        machine=machine,
        prefill=_rate(
            machine,
            prefill_work(model, sizes.prompt_tokens),
            1,
            sizes.prompt_tokens,
            [timing.prefill for timing in timings],
        ),
        decode=_rate(
            machine, decode_work(model, 1, history), 1, 1, [timing.decode / sizes.new_tokens for timing in timings]
        ),
        decode_rows=_rate(
            machine,
            decode_work(model, sizes.rows, history),
            sizes.rows,
            sizes.rows,
            [timing.decode_rows / sizes.new_tokens for timing in timings],
        ),
    )


def multiplies_bytes(model: LanguageModel) -> bool:
    """Whether the products of a model's layers are those of bytes, which the kernels have for quantised weights."""
    return model.decoder_config.quantisation is not None and model.device.type == "cpu" and bool(LEVELS)


def _rate(machine: Machine, work: Work, rows: int, tokens: int, seconds: Sequence[float]) -> Rate:
    """The speed of a pass that takes `seconds` for `tokens`, in several tries."""
    median, floor = statistics.median(seconds), machine.floor_seconds(work)
    return Rate(rows, tokens / median, tokens / floor, 100 * floor / median, machine.bound(work))
