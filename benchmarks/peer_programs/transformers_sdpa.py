"""transformers in bf16 with its default attention, for peers.py."""

import time

import torch
import transformers
from measure import Prompts, read_arguments, report
from transformers import AutoModelForCausalLM, DynamicCache


def main() -> None:
    weights, sizes = read_arguments()
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.bfloat16, attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        cache = DynamicCache(config=model.config)
        ids = torch.tensor(prompts)
        times = []
        for _ in range(steps + 1):
            logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
            times.append(time.perf_counter())
        return times[0], times[-1]

    report(transformers.__version__, sizes, run)


if __name__ == "__main__":
    main()
