"""How often a token differs in bf16 between rows answered alone and together.

With the native kernels, never. The stock product rounds differently with the number of rows in a step
(docs/decisions/0001-packed-tokens.md). In fp32, tests find no different token.

python benchmarks/bf16_together.py --model nano --rows 64
"""

import argparse

import torch

from phi4 import Assistant, Message, Sampling
from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import GeneratedToken, Request

SUBJECTS = ("the sea", "a clock", "bread", "winter", "a bridge", "the moon", "a letter", "rice")
WISHES = (
    "Write one sentence about {}.",
    "Explain {} to a child.",
    "Name three things that go with {}.",
    "What would a poet say about {}?",
    "Ask me a question about {}.",
    "Write a short story about {}.",
    "What is difficult about {}?",
    "Describe {} in five words.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=32)
    arguments = parser.parse_args()
    assistant = Assistant.load(arguments.model, packs=(), device="cpu", dtype=torch.bfloat16)
    questions = [wish.format(subject) for wish in WISHES for subject in SUBJECTS][: arguments.rows]
    sampling = Sampling(max_tokens=arguments.max_tokens, logprobs=0)
    requests = [Request(assistant.processor.prepare([Message("user", one)]), sampling) for one in questions]
    engine = Engine(
        assistant.loaded.model, assistant.loaded.generation.eos_token_ids, SchedulerLimits(reuse_prefixes=False)
    )
    alone = [list(engine.submit(request)) for request in requests]
    together: list[list[GeneratedToken]] = [[] for _ in requests]
    for index, token in engine.generate(requests):
        together[index].append(token)
    comparable, different, largest = 0, 0, 0.0
    for rows in zip(alone, together, strict=True):
        for one, other in zip(*rows, strict=False):
            comparable += 1
            if one.token_id != other.token_id:  # behind it, they are different conversations
                different += 1
                break
            largest = max(largest, abs(log_probability(one) - log_probability(other)))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{different} of {len(requests)} answers differ, {different} of {comparable} tokens behind equal beginnings")
    print(f"log-probabilities of equal tokens differ by up to {largest:.3f}")


def log_probability(token: GeneratedToken) -> float:
    """Of the token that was chosen."""
    assert token.log_probabilities is not None
    return token.log_probabilities.chosen


if __name__ == "__main__":
    main()
