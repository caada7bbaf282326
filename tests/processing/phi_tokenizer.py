"""A small byte-level BPE tokenizer with the release's role, tool and placeholder tokens."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

# text, rstrip, special: the table of facts sheet 2.1.
PHI_TOKENS = (
    ("<|endoftext|>", False, True),
    ("<|endoftext10|>", False, True),
    ("<|endoftext11|>", False, True),
    ("<|endofprompt|>", False, True),
    ("<|assistant|>", True, True),
    ("<|end|>", True, True),
    ("<|user|>", True, True),
    ("<|system|>", True, True),
    ("<|tool|>", True, False),
    ("<|/tool|>", True, False),
    ("<|tool_call|>", True, False),
    ("<|/tool_call|>", True, False),
    ("<|tool_response|>", True, False),
    ("<|tag|>", True, True),
)

CORPUS = (
    "Hello, world! What is the capital of France? The capital of France is Paris.",
    "You are a helpful assistant. The user and the system end. naïve café 日本語 🙂",
    'def f(x):\n    return x + 1\n{"name": "get_weather", "arguments": {"city": "Paris"}}',
)


def phi_tokenizer_json() -> dict[str, Any]:
    """The content of a `tokenizer.json` whose added tokens also stand in its vocabulary."""
    backend = BackendTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    raw: dict[str, Any] = json.loads(backend.to_str())
    first_id = len(raw["model"]["vocab"])
    for token_id, (text, rstrip, special) in enumerate(PHI_TOKENS, start=first_id):
        raw["model"]["vocab"][text] = token_id
        raw["added_tokens"].append(
            {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": rstrip,
                "normalized": False,
                "special": special,
            }
        )
    return raw


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
