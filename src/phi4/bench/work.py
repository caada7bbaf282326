"""The least work that a pass of a language model is: bytes of memory to read, and operations of its products."""

from dataclasses import dataclass

from torch import nn

from phi4.config import DecoderConfig
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal


@dataclass(frozen=True)
class Work:
    """What has to be done, whatever does it.

    Attributes:
        read_bytes: of weights and of the key/value cache.
        operations: of matrix products, attention included; a multiplication and an addition are two.
    """

    read_bytes: float
    operations: float


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, each counted once, in whatever type they are stored."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def weight_bytes(model: Phi4Mini | Phi4Multimodal) -> int:
    """Bytes of weights that a pass over text reads: no encoders, no adapters, of an untied embedding next to none."""
    language = model.language if isinstance(model, Phi4Multimodal) else model
    unread = [module for name, module in language.named_modules() if name.endswith((".lora_A", ".lora_B"))]
    if not language.config.tie_word_embeddings:
        unread.append(language.model.embed_tokens)
    return tensor_bytes(language) - sum(map(tensor_bytes, unread))


def prefill_work(model: Phi4Mini | Phi4Multimodal, tokens: int) -> Work:
    """One pass over a prompt that gives the scores behind its last token.

    What follows the last layer's keys and values is needed for the last token alone.
    """
    config = model.decoder_config
    own, rest = _layer_values(config)
    operations = 2 * (
        config.num_hidden_layers * own * tokens
        + rest * ((config.num_hidden_layers - 1) * tokens + 1)
        + config.vocab_size * config.hidden_size
    )
    # A token attends to itself and those before it, with two products; in the last layer the last token alone does.
    pairs = (config.num_hidden_layers - 1) * tokens * (tokens + 1) / 2 + tokens
    return Work(weight_bytes(model), operations + 4 * config.num_attention_heads * config.head_dim * pairs)


def decode_work(model: Phi4Mini | Phi4Multimodal, rows: int, history: float) -> Work:
    """One step that adds a token to each of some rows.

    Args:
        model: the model.
        rows: conversations in the step.
        history: tokens that each row attends to.
    """
    config = model.decoder_config
    values = config.num_hidden_layers * sum(_layer_values(config)) + config.vocab_size * config.hidden_size
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * history
    cache_bytes = config.kv_values_per_token * model.dtype.itemsize * history
    return Work(weight_bytes(model) + rows * cache_bytes, rows * (2 * values + attention))


def _layer_values(config: DecoderConfig) -> tuple[int, int]:
    """Values of a layer's matrices: of the projection to queries, keys and values, and of what comes after it."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    own = config.hidden_size * (heads + 2 * kv_heads) * config.head_dim
    rest = config.hidden_size * heads * config.head_dim + 3 * config.hidden_size * config.intermediate_size
    return own, rest
