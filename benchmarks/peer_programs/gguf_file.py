"""Writes the language model of a directory as a GGUF file of architecture phi3, in bf16, for peers.py."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType

from phi4.byte_level import byte_alphabet
from phi4.checkpoint.weights import load_model
from phi4.config import DecoderConfig
from phi4.model.rope import longrope_scale

RENAMED = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(directory: Path, path: Path) -> None:
    """Writes weights and sizes; its tokens have made-up names, for prompts come as ids."""
    model = load_model(directory, dtype=torch.bfloat16).model
    config = model.decoder_config
    writer = gguf.GGUFWriter(path, "phi3")
    _add_sizes(writer, config)
    _add_tokens(writer, config.vocab_size)
    if config.rope_scaling is not None:
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_rope_scaling_attn_factors(longrope_scale(config))
        for kind in ("long", "short"):
            factors = np.array(getattr(config.rope_scaling, f"{kind}_factor"), dtype=np.float32)
            writer.add_tensor(f"rope_factors_{kind}.weight", factors)
    for name, tensor in model.state_dict().items():
        for ours, theirs in RENAMED.items():
            name = name.replace(ours, theirs)
        if tensor.dim() == 1:
            writer.add_tensor(name, tensor.float().numpy())
        else:
            bits = tensor.contiguous().view(torch.uint8).numpy()
            writer.add_tensor(name, bits, raw_dtype=GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, config: DecoderConfig) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.rotary_dim)


def _add_tokens(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """As many tokens as the model has: bytes, and names that no text holds."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    letters = list(byte_alphabet())
    writer.add_token_list([*letters, *(f"<made-up {number}>" for number in range(len(letters), vocab_size))])
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * len(letters) + [gguf.TokenType.CONTROL] * (vocab_size - len(letters))
    )
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(len(letters))
    writer.add_eos_token_id(len(letters))
