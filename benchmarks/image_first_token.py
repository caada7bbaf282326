"""One picture of 1344 x 896 and a short question to the first token: a quantised Phi-4-Multimodal against transformers.

Every round runs each side once, in a process of its own: it loads, warms up with a small picture, and is timed.
Loading is not counted. Both sides get the pixels and token ids that our processor prepared; how long that takes is
printed by itself, since transformers' own image processor needs torchvision. transformers runs its own class in
bf16 with the vision adapter, on the same weights before they were quantised. Where a picture needs no mask, its default
attention (SDPA) takes the vision tower for causal, which spares half of the scores; eager attention computes what the
release does.

    phi4 init multimodal /tmp/multimodal
    phi4 quantize /tmp/multimodal /tmp/multimodal-4bit --encoders 8bit --adapters 8bit
    python benchmarks/image_first_token.py /tmp/multimodal /tmp/multimodal-4bit --rounds 3
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from encoders import multiply_large
from quantised_linear import floors
from timing import alternate

from phi4 import Assistant, Sampling
from phi4.checkpoint.converted import to_native
from phi4.checkpoint.keymap import adapter_of, file_name
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.peft_folder import TARGET_PATTERN
from phi4.config import ModelConfig
from phi4.engine.request import Request
from phi4.inputs import ModelInputs
from phi4.memory import peak_resident_bytes
from phi4.processing.messages import user_message
from phi4.processing.processor import Processor

QUESTION = "What is in this picture?"
SIZE, SMALL = (1344, 896), (448, 448)
ATTENTIONS = ("sdpa", "eager")
# What a process prints: seconds, or bytes.
Report = dict[str, float]


def prepare(processor: Processor, size: tuple[int, int]) -> ModelInputs:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return processor.prepare([user_message(QUESTION, [PIL.Image.fromarray(pixels)])])


def run_ours(directory: Path) -> Report:
    assistant = Assistant.load(directory, device="cpu")
    model = assistant.loaded.model
    clocks = {
        name: Clock(module)
        for name, module in {
            "tower": model.get_submodule("vision.encoder"),
            "vision": model.get_submodule("vision"),
            "language": model.get_submodule("language"),
        }.items()
    }

    def first_token(inputs: ModelInputs) -> float:
        started = time.perf_counter()
        next(iter(assistant.engine.submit(Request(inputs, Sampling(max_tokens=1)))))
        return time.perf_counter() - started

    first_token(prepare(assistant.processor, SMALL))
    for clock in clocks.values():
        clock.seconds = 0.0
    started = time.perf_counter()
    inputs = prepare(assistant.processor, SIZE)
    prepared = time.perf_counter() - started
    total = first_token(inputs)
    return {
        "prepare": prepared,
        "total": total,
        "vision tower": clocks["tower"].seconds,
        "projector": clocks["vision"].seconds - clocks["tower"].seconds,
        "language model": clocks["language"].seconds,
        "tokens": len(inputs.token_ids),
        "peak_bytes": peak_resident_bytes(),
    }


class Clock:
    """Adds up how long a module takes."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.seconds = 0.0
        self._started = 0.0
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


def run_theirs(directory: Path, attention: str) -> Report:
    checkpoint = open_checkpoint(directory)
    processor = Processor.load(directory, checkpoint.config, checkpoint.preprocessor)
    model = load_theirs(directory, attention)

    @torch.inference_mode()
    def first_token(inputs: ModelInputs) -> float:
        ids = torch.tensor([inputs.token_ids])
        (medium,) = inputs.media
        image = medium.data
        crop_px = image.crops.shape[-1]
        picture = {
            "image_pixel_values": image.crops[None].bfloat16(),
            "image_sizes": torch.tensor([[image.rows * crop_px, image.columns * crop_px]]),
            "image_attention_mask": image.mask[None],
        }
        started = time.perf_counter()
        model(ids, **picture, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)
        return time.perf_counter() - started

    first_token(prepare(processor, SMALL))
    return {"total": first_token(prepare(processor, SIZE)), "peak_bytes": peak_resident_bytes()}


def load_theirs(directory: Path, attention: str) -> Any:
    """transformers' class with mapped weights under its own names, and the vision adapter from PEFT."""
    from peft import LoraConfig
    from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

    checkpoint = open_checkpoint(directory)
    config = Phi4MultimodalConfig.from_dict(to_native(checkpoint.config, checkpoint.generation.eos_token_ids))
    state = {
        file_name(name, "converted"): tensor.read()
        for name, tensor in checkpoint.tensors.items()
        if adapter_of(name) is None
    }
    model = Phi4MultimodalForCausalLM.from_pretrained(
        None, config=config, state_dict=state, dtype=torch.bfloat16, attn_implementation=attention
    ).eval()
    adapter = checkpoint.config.adapters["vision"]
    lora = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=TARGET_PATTERN)
    model.add_adapter(lora, adapter_name="vision")
    own = {
        name.removeprefix("language."): tensor.read()
        for name, tensor in checkpoint.tensors.items()
        if adapter_of(name) == "vision"
    }
    _, unknown = model.load_state_dict(own, strict=False, assign=True)
    assert not unknown, unknown
    assert not any(parameter.is_meta for parameter in model.parameters())
    model.set_adapter("vision")
    return model


def operations(config: ModelConfig, tokens: int, num_crops: int) -> dict[str, float]:
    """10^12 operations of each part for one picture: linears of tower and decoder, adapter, attention of both."""
    vision, decoder, adapter = config.vision, config.decoder, config.adapters["vision"]
    assert vision is not None
    patches, width = vision.patches_per_side**2, vision.hidden_size
    layers = vision.num_feature_layers
    heads = decoder.num_attention_heads * decoder.head_dim
    fused = heads + 2 * decoder.num_key_value_heads * decoder.head_dim
    sizes = [
        (decoder.hidden_size, fused),
        (heads, decoder.hidden_size),
        (decoder.hidden_size, 2 * decoder.intermediate_size),
        (decoder.intermediate_size, decoder.hidden_size),
    ]
    depth = decoder.num_hidden_layers
    counts = {
        "tower, linears": num_crops * patches * layers * (4 * width**2 + 2 * width * vision.intermediate_size),
        "tower, attention": num_crops * layers * 2 * patches**2 * width,
        "language model, linears": tokens * depth * sum(inputs * outputs for inputs, outputs in sizes),
        "language model, adapter": tokens * depth * adapter.rank * sum(map(sum, sizes)),
        "language model, attention": depth * tokens**2 * heads,
    }
    return {name: 2 * count / 1e12 for name, count in counts.items()}


def run_side(side: str, directory: Path) -> Report:
    """One round of one side, in a process of its own."""
    command = [sys.executable, __file__, str(directory), "--side", side]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    report: Report = json.loads(finished.stdout.splitlines()[-1])
    print(f"{side} {directory}: " + ", ".join(f"{name} {value:.4g}" for name, value in report.items()), flush=True)
    return report


def print_floors(config: ModelConfig, tokens: int, num_crops: int) -> None:
    threads = torch.get_num_threads()
    _, bytes_rate = floors(threads)
    with torch.inference_mode():
        seconds = alternate({"product": multiply_large}, 3)["product"]
    bf16_rate = 2 * 3072**3 / seconds / 1e12
    print(f"{threads} threads: {bytes_rate:.2f} TOPS of 8 bits, {bf16_rate:.2f} TFLOP/s of bf16")
    for name, count in operations(config, tokens, num_crops).items():
        print(f"{name}: {count:.2f} T, {count / bytes_rate:.1f} s of 8 bits, {count / bf16_rate:.1f} s of bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="with the weights in bf16")
    parser.add_argument("quantised", type=Path, nargs="*", help="made from it; each is a side")
    parser.add_argument("--attention", choices=ATTENTIONS, nargs="*", default=ATTENTIONS, help="of transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("phi4", *ATTENTIONS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run = run_ours if arguments.side == "phi4" else partial(run_theirs, attention=arguments.side)
        print(json.dumps(run(arguments.directory)))
        return
    sides = [
        *(("phi4", directory) for directory in arguments.quantised),
        *((attention, arguments.directory) for attention in arguments.attention),
    ]
    reports: list[list[Report]] = [[] for _ in sides]
    for _ in range(arguments.rounds):
        for own, (side, directory) in zip(reports, sides, strict=True):
            own.append(run_side(side, directory))
    for own, (side, directory) in zip(reports, sides, strict=True):
        medians = {name: statistics.median(report[name] for report in own) for name in own[0]}
        print(f"median of {side} {directory}: " + ", ".join(f"{name} {value:.4g}" for name, value in medians.items()))
    checkpoint = open_checkpoint(arguments.directory)
    inputs = prepare(Processor.load(arguments.directory, checkpoint.config, checkpoint.preprocessor), SIZE)
    print_floors(checkpoint.config, len(inputs.token_ids), len(inputs.media[0].data.mask))


if __name__ == "__main__":
    main()
