"""One step of the LoRA stage against transformers with PEFT: tokens per second, peak memory, and the losses.

Both sides have the same files of a frozen bf16 base, the same first LoRA on the four linears of every layer, the same
conversations of random tokens, the loss on the answers only, clipped gradients, and AdamW with the same settings.
Every measurement is a process of its own, and the sides take turns.

Ours is the trainer's step: its objective, `AnswerLoss`, and its optimiser, `Masters`, on one packed row. One thing
differs from a stage: the adapter rule gives conversations of text no adapter, so the model measured here has a rule
of its own, by which every conversation takes the vision adapter.

Theirs is measured in four ways, and ours is compared with the fastest and with the one of least memory. Adapters are
fp32 under bf16 autocast, PEFT's default, or bf16 with all of AdamW's state, which loses small updates. Conversations
are padded on the right to the longest, or flattened as DataCollatorWithFlattening does it. AdamW is the fused one,
the default of transformers' own trainer.

    python benchmarks/training.py /tmp/training --rounds 5

`--rounded-base` measures ours once more, with products with the base in 8 bits; `--ways` without a name leaves theirs
out.
"""

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

ADAPTER = "vision"
LINEARS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
SLICE_LAYERS = 4

# The defaults of `Stage`.
BETAS, EPSILON, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.95), 1e-7, 0.01, 1.0

# Both sides round to bf16, each in other places. Relative to the loss before the first step.
LOSS_TOLERANCE = 0.01


@dataclass(frozen=True)
class Case:
    """A model, the LoRA that it gets, and a rate at which a few steps show in the loss."""

    base: str
    rank: int
    alpha: int
    learning_rate: float


# The LoRA of nano's recipes, and the release's for vision and for speech (facts sheet 6.1).
CASES = {
    "nano": Case("nano", 16, 32, 3e-4),
    "mini-256": Case("mini", 256, 512, 1e-5),
    "mini-320": Case("mini", 320, 640, 1e-5),
}


@dataclass(frozen=True)
class Way:
    """How transformers and PEFT are used."""

    adapter_dtype: torch.dtype
    padded: bool


OURS = "phi4"
ROUNDED = "phi4, rounded base"
WAYS = {
    "padded-fp32": Way(torch.float32, padded=True),
    "padded-bf16": Way(torch.bfloat16, padded=True),
    "flat-fp32": Way(torch.float32, padded=False),
    "flat-bf16": Way(torch.bfloat16, padded=False),
}


# Token ids of each conversation, and how many of them, at the end, are the answer.
Conversations = Sequence[tuple[tuple[int, ...], int]]


def draw_conversations(count: int, vocab_size: int) -> Conversations:
    """Draws conversations of 40 to 160 tokens with answers of 5 to 39, always the same ones."""
    generator = random.Random(0)
    conversations = []
    for _ in range(count):
        # Control tokens are at either end of both vocabularies.
        ids = generator.choices(range(100, vocab_size - 100), k=generator.randint(40, 160))
        conversations.append((tuple(ids), generator.randint(5, 39)))
    return conversations


def find_base(base: str, work: Path) -> Path:
    """Returns the directory of a base; the slice of `mini` is written with random weights if it is not there."""
    from phi4.checkpoint.config_json import read_config
    from phi4.checkpoint.initialise import random_tensor
    from phi4.checkpoint.keymap import parameter_shapes
    from phi4.checkpoint.layouts import write_checkpoint
    from phi4.checkpoint.nano import pull_nano
    from phi4.checkpoint.presets import load_preset
    from phi4.checkpoint.shards import TensorSpec
    from phi4.files import new_directory

    directory = work / f"{base}-{SLICE_LAYERS}-layers"
    if base == "nano" or directory.exists():
        return pull_nano() if base == "nano" else directory
    raw = load_preset(base).config.raw
    config = read_config({**raw, "num_hidden_layers": SLICE_LAYERS})
    specs = {name: TensorSpec(torch.bfloat16, shape) for name, shape in parameter_shapes(config).items()}

    def tensor_of(name: str) -> torch.Tensor:
        return random_tensor(name, specs[name], 0, raw["initializer_range"])

    with new_directory(directory) as partial:
        write_checkpoint(partial, config, specs, tensor_of, "released", (raw["eos_token_id"],))
    return directory


@torch.no_grad()
def initialise_lora(model: nn.Module) -> None:
    """Draws A as PEFT does and sets B to zero; the values are the same on both sides."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        if ".lora_A." in name:
            bound = parameter.shape[1] ** -0.5
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
            parameter.copy_(drawn.to(torch.bfloat16))
        elif ".lora_B." in name:
            parameter.zero_()


def load_ours(directory: Path, case: Case) -> nn.Module:
    """The base and an adapter, without any encoder."""
    from phi4.checkpoint.keymap import adapter_of, parameter_shapes
    from phi4.checkpoint.layouts import open_checkpoint
    from phi4.config import AdapterConfig
    from phi4.model.multimodal import Phi4Multimodal
    from phi4.train.parts import select_trained

    class AlwaysAdapted(Phi4Multimodal):
        def adapter_for(self, modalities: frozenset[str]) -> str:
            return ADAPTER

    checkpoint = open_checkpoint(directory)
    config = replace(checkpoint.config, adapters={ADAPTER: AdapterConfig(case.rank, case.alpha)})
    lora = {name: shape for name, shape in parameter_shapes(config).items() if adapter_of(name)}
    state = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in lora.items()}
    state |= {f"language.{name}": tensor.read() for name, tensor in checkpoint.tensors.items()}
    with torch.device("meta"):
        model = AlwaysAdapted(config)
    model.load_state_dict(state, assign=True)
    select_trained(model, [f"{ADAPTER}.adapter"])
    return model


def step_ours(model: nn.Module, conversations: Conversations, case: Case, recompute: bool) -> Callable[[], float]:
    """A step as `Trainer` does it for one row; the function returns the mean loss of an answer's token."""
    from phi4.data.example import Example
    from phi4.data.record import Record
    from phi4.inputs import ModelInputs
    from phi4.processing.messages import Message
    from phi4.train.masters import Masters
    from phi4.train.objectives.answers import AnswerLoss
    from phi4.train.stage import Source, Stage

    # Neither the objective nor the optimiser looks at the text.
    record = Record("text", (Message("user", ""), Message("assistant", "")), "random tokens", "none", "train", "text")
    examples = []
    for ids, num_answer_tokens in conversations:
        prompt = len(ids) - num_answer_tokens
        examples.append(Example(ModelInputs(ids), tuple(range(prompt - 1, len(ids) - 1)), ids[prompt:], record))
    stage = Stage("benchmark", (f"{ADAPTER}.adapter",), (Source("text"),), 1, case.learning_rate, recompute=recompute)
    assert ((stage.beta1, stage.beta2), stage.epsilon) == (BETAS, EPSILON)
    assert (stage.weight_decay, stage.max_grad_norm) == (WEIGHT_DECAY, MAX_GRAD_NORM)
    objective = AnswerLoss(stage.recompute)
    masters = Masters({name: p for name, p in model.named_parameters() if p.requires_grad}, stage)
    count = objective.count(examples)

    def step() -> float:
        loss = objective(model, examples)
        (loss.total / count).backward()
        masters.accumulate()
        masters.update(case.learning_rate)
        return float(loss.total.detach()) / count

    return step


def load_theirs(directory: Path, case: Case, way: Way) -> nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="sdpa")
    lora = LoraConfig(r=case.rank, lora_alpha=case.alpha, target_modules=list(LINEARS), task_type="CAUSAL_LM")
    return get_peft_model(base, lora, autocast_adapter_dtype=way.adapter_dtype == torch.float32)


def step_theirs(
    model: nn.Module, conversations: Conversations, case: Case, recompute: bool, way: Way
) -> Callable[[], float]:
    """A step as a user of transformers and PEFT writes it."""
    batch = collate(conversations, way)
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == way.adapter_dtype for parameter in trained)
    adamw = torch.optim.AdamW(trained, case.learning_rate, BETAS, EPSILON, WEIGHT_DECAY, fused=True)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=way.adapter_dtype == torch.float32):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def collate(conversations: Conversations, way: Way) -> dict[str, torch.Tensor]:
    """Builds their batch; label -100 is not scored, and the model itself shifts labels by one."""
    ids = [torch.tensor(token_ids) for token_ids, _ in conversations]
    labels = [own.clone() for own in ids]
    for own, (_, num_answer_tokens) in zip(labels, conversations, strict=True):
        own[:-num_answer_tokens] = -100
    if not way.padded:
        positions = [torch.arange(len(own)) for own in ids]
        flat = {"input_ids": torch.cat(ids), "labels": torch.cat(labels), "position_ids": torch.cat(positions)}
        return {name: values[None] for name, values in flat.items()}
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(ids, batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=-100),
        "attention_mask": pad([torch.ones_like(own) for own in ids], batch_first=True),
    }


def run_alone(side: str, case: Case, directory: Path, count: int, steps: int, recompute: bool) -> dict[str, Any]:
    """Loads one side and runs its steps; called in a process of its own, so that its memory is that of this side."""
    conversations = draw_conversations(count, json.loads((directory / "config.json").read_text())["vocab_size"])
    is_ours = side in (OURS, ROUNDED)
    model = load_ours(directory, case) if is_ours else load_theirs(directory, case, WAYS[side])
    initialise_lora(model)
    if side == ROUNDED:
        from phi4.train.rounded_base import round_base

        round_base(model)
    for parameter in model.parameters():  # ours is mapped: read every page of it
        parameter.detach().flatten()[::1024].sum()
    gc.collect()
    loaded = read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is to be that of training, not of loading
    model.train()
    settings = (model, conversations, case, recompute)
    step = step_ours(*settings) if is_ours else step_theirs(*settings, WAYS[side])
    losses, seconds = [], []
    for _ in range(1 + steps):
        started = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - started)
    return {
        "tokens": sum(len(token_ids) for token_ids, _ in conversations),
        "losses": losses,
        "seconds": statistics.median(seconds[1:]),  # the first step warms up
        "loaded_bytes": loaded,
        "peak_bytes": read_memory("VmHWM"),
    }


def read_memory(field: str) -> int:
    """Reads a field of /proc/self/status, in bytes: VmRSS is memory now, VmHWM its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def compare(case: str, sides: Sequence[str], directory: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures every side of a case in turn, and returns the medians of each."""
    options = ["--cases", case, "--directory", str(directory), "--steps", str(arguments.steps)]
    options += ["--conversations", str(arguments.conversations), *(["--recompute"] if arguments.recompute else [])]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for round_number in range(arguments.rounds):
        for side in sides:
            command = [sys.executable, __file__, str(arguments.work), "--alone", side, *options]
            result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
            runs[side].append(result)
            print(f"{case} round {round_number} {side:12} {result['seconds']:7.2f} s a step", flush=True)
    return [{"case": case, "side": side, **summarise(results)} for side, results in runs.items()]


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians over the rounds of one side; the losses are the same in each but for the order of sums."""
    seconds = [result["seconds"] for result in results]
    return {
        "tokens_per_second": results[0]["tokens"] / statistics.median(seconds),
        "peak_bytes": statistics.median(result["peak_bytes"] for result in results),
        "above_loaded_bytes": statistics.median(result["peak_bytes"] - result["loaded_bytes"] for result in results),
        "losses": results[0]["losses"],
        "seconds": seconds,
    }


def report(ours: dict[str, Any], theirs: Sequence[dict[str, Any]]) -> None:
    """Prints one case as a table: every side, then ours against the others and the best of theirs."""
    columns = ("case", "side", "tokens/s", "peak GiB", "GiB above loaded", "loss before", "loss after")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in (ours, *theirs):
        rate, peak, above = row["tokens_per_second"], row["peak_bytes"] / 2**30, row["above_loaded_bytes"] / 2**30
        losses = f"{row['losses'][0]:.4f} | {row['losses'][-1]:.4f}"
        print(f"| {row['case']} | {row['side']} | {rate:.1f} | {peak:.2f} | {above:.2f} | {losses} |")
    for row in theirs:
        before, after = ((row["losses"][place] - ours["losses"][place]) / ours["losses"][0] for place in (0, -1))
        verdict = "the same work" if max(abs(before), abs(after)) < LOSS_TOLERANCE else "NOT THE SAME WORK"
        print(f"{row['side']}: loss differs by {before:+.3%} before the steps, {after:+.3%} after them: {verdict}")
        if row["side"] == ROUNDED:
            print(f"{ROUNDED}: {row['tokens_per_second'] / ours['tokens_per_second']:.2f} x the speed of {OURS}")
    peers = [row for row in theirs if row["side"] != ROUNDED]
    if not peers:
        return
    fastest = max(peers, key=lambda row: row["tokens_per_second"])
    leanest = min(peers, key=lambda row: row["peak_bytes"])
    won = sum(own < other for own, other in zip(ours["seconds"], fastest["seconds"], strict=True))
    print(
        f"{ours['case']}: {ours['tokens_per_second'] / fastest['tokens_per_second']:.2f} x the speed of "
        f"{fastest['side']} (faster in {won} of {len(ours['seconds'])} rounds), "
        f"{ours['peak_bytes'] / leanest['peak_bytes']:.2f} x the peak memory of {leanest['side']} "
        f"({ours['above_loaded_bytes'] / leanest['above_loaded_bytes']:.2f} x above the loaded model)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="where the slice of mini is written, 2 GB, if it is not there")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process, after one that warms up")
    parser.add_argument("--conversations", type=int, default=16)
    parser.add_argument("--recompute", action="store_true", help="both sides run layers again in the backward pass")
    parser.add_argument("--rounded-base", action="store_true", help="measure ours with a rounded base too")
    parser.add_argument("--alone", choices=[OURS, ROUNDED, *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.conversations, arguments.steps, arguments.recompute)
    if arguments.alone:
        print(json.dumps(run_alone(arguments.alone, CASES[arguments.cases[0]], arguments.directory, *sizes)))
        return

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments}")
    for case in arguments.cases:
        directory = find_base(CASES[case].base, arguments.work)
        sides = [OURS, *([ROUNDED] if arguments.rounded_base else []), *arguments.ways]
        rows = compare(case, sides, directory, arguments)
        report(rows[0], rows[1:])
        print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main()
