"""How often a token differs, with the stock bf16 matrix product, between rows answered alone and together.

The product rounds differently with the number of rows in a step (docs/decisions/0001-packed-tokens.md). In fp32, tests
find no different token.

python benchmarks/bf16_together.py --model nano --rows 64
"""

import argparse

import torch

from phi4 import Assistant, Message, Sampling
from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import Request

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
    sampling = Sampling(max_tokens=arguments.max_tokens)
    requests = [Request(assistant.processor.prepare([Message("user", one)]), sampling) for one in questions]
    engine = Engine(
        assistant.loaded.model, assistant.loaded.generation.eos_token_ids, SchedulerLimits(reuse_prefixes=False)
    )
    alone = [[token.token_id for token in engine.submit(request)] for request in requests]
    together: list[list[int]] = [[] for _ in requests]
    for index, token in engine.generate(requests):
        together[index].append(token.token_id)
    # Behind the first different token, the rows are different conversations.
    comparable = different = 0
    for one, other in zip(alone, together, strict=True):
        equal = next((place for place, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), None)
        comparable += len(one) if equal is None else equal + 1
        different += equal is not None
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads: {different} of {len(requests)} answers differ, "
        f"one token in {comparable / max(1, different):.0f} of {comparable} that follow equal beginnings"
    )


if __name__ == "__main__":
    main()
