"""GGUF files written here with gguf's own writer, imported, and run in transformers beside their originals."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quantization
from gguf.quants import dequantize, quantize
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from phi4.byte_level import byte_alphabet
from phi4.checkpoint.gguf import import_gguf, open_gguf, rotary_share
from phi4.checkpoint.gguf_tokenizer import PRE_TOKENIZERS, TokenType, added_token, end_token_ids
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.tokenizer_files import AddedToken
from phi4.checkpoint.weights import load_model
from phi4.errors import CheckpointError, ConfigError

SIZES: dict[str, Any] = {
    "vocab_size": 262,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
    "attn_implementation": "eager",
}
LONG_ROPE = {"type": "longrope", "long_factor": [1.118320672, 8.0], "short_factor": [1.0, 1.5]}
CHAT_ML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TOKENS = [*byte_alphabet(), "<|end of text|>", "<|im_start|>", "<|im_end|>", "ab", "<tool>", "[PAD]"]
TYPES = [
    *[TokenType.NORMAL] * 256,
    *[TokenType.CONTROL] * 3,
    TokenType.NORMAL,
    TokenType.USER_DEFINED,
    TokenType.UNUSED,
]


def build_original(architecture: str) -> Any:
    torch.manual_seed(0)
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, max_position_embeddings=512, tie_word_embeddings=True)).eval()
    config = Phi3Config(
        **SIZES,
        max_position_embeddings=512,
        original_max_position_embeddings=64,
        partial_rotary_factor=0.25,
        rope_scaling=LONG_ROPE,
        tie_word_embeddings=False,
    )
    return Phi3ForCausalLM(config).eval()


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """The order of q and k rows that llama.cpp's converter writes."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def gguf_tensors(model: Any, architecture: str) -> dict[str, np.ndarray]:
    renames = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and architecture == "llama":
            continue
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        heads = {"attn_q.weight": 4, "attn_k.weight": 2}.get(name.split(".", 2)[-1])
        tensors[name] = interleave(tensor.numpy(), heads) if heads else tensor.numpy()
    return tensors


def write_gguf(
    path: Path, architecture: str, quantization: Quantization, change: Callable[[gguf.GGUFWriter], object] | None = None
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(16 if architecture == "llama" else 4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    writer.add_chat_template(CHAT_ML)
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(64)
        for name in ("long", "short"):
            factors = np.array(LONG_ROPE[f"{name}_factor"], dtype=np.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", factors)
    if change is not None:
        change(writer)
    for name, tensor in gguf_tensors(build_original(architecture), architecture).items():
        kind = Quantization.F32 if tensor.ndim == 1 else quantization
        writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded_original(architecture: str, quantization: Quantization) -> Any:
    """The original with the rounding of the file and then of bfloat16 in its weights."""
    model = copy.deepcopy(build_original(architecture))
    with torch.no_grad():
        for parameter in model.parameters():
            kind = Quantization.F32 if parameter.dim() == 1 else quantization
            values = dequantize(quantize(parameter.numpy(), kind), kind)
            parameter.copy_(torch.from_numpy(values).bfloat16())
    return model


@pytest.mark.parametrize("quantization", [Quantization.F32, Quantization.F16, Quantization.BF16, Quantization.Q8_0])
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_the_imported_model_gives_the_originals_logits(
    tmp_path: Path, architecture: str, quantization: Quantization
) -> None:
    write_gguf(tmp_path / "m.gguf", architecture, quantization)
    import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    theirs, loading = Phi3ForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    original = rounded_original(architecture, quantization)
    for length in (20, 80):
        ids = torch.arange(length)[None]
        with torch.no_grad():
            expected, found = original(ids).logits, theirs.eval()(ids).logits
        assert (expected - found).abs().max() <= 2e-5 * expected.abs().max()


def test_the_configuration_is_read_back(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "phi3", Quantization.F16)
    import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    decoder = loaded.config.decoder
    assert decoder.rms_norm_eps == 1e-5
    assert decoder.rope_theta == 50000.0
    assert (decoder.rotary_dim, decoder.original_max_position_embeddings) == (4, 64)
    assert not decoder.tie_word_embeddings
    assert decoder.rope_scaling is not None
    assert decoder.rope_scaling.long_factor == (1.1183207, 8.0)
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.generation.eos_token_ids == (256, 258)


def test_the_tokenizer_is_imported_with_its_manners(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16)
    import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json"))
    space = TOKENS.index("Ġ")
    assert tokenizer.encode("ab 12").ids == [259, space, TOKENS.index("1"), TOKENS.index("2")]
    assert tokenizer.encode("<|im_end|>a<tool>").ids == [258, TOKENS.index("a"), 260]
    assert tokenizer.decode([258, 260]) == "<tool>"
    assert tokenizer.token_to_id("[PAD]") is None
    config = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_ML
    assert config["eos_token"] == "<|end of text|>"


def test_phi4s_tokens_keep_the_manners_that_gguf_cannot_say() -> None:
    assert added_token(200021, "<|user|>", TokenType.CONTROL) == AddedToken(200021, "<|user|>", rstrip=True)
    assert added_token(200025, "<|tool_call|>", TokenType.CONTROL).special is False
    assert added_token(5, "<|user|>", TokenType.CONTROL) == AddedToken(5, "<|user|>")


def test_a_first_token_is_added_where_the_file_asks_for_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16, lambda writer: writer.add_add_bos_token(True))
    import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json"))
    assert tokenizer.encode("a").ids == [256, TOKENS.index("a")]
    assert tokenizer.encode("a", add_special_tokens=False).ids == [TOKENS.index("a")]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_way_of_cutting_text_is_valid(tmp_path: Path, pre: str) -> None:
    def set_pre(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0]["tokenizer.ggml.pre"]
        writer.add_tokenizer_pre(pre)

    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16, set_pre)
    import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json"))
    text = "I'LL say  it's 12345 ways:\n\n naïve 日本 "
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def replace_value(key: str, value: str | int | list[Any]) -> Callable[[gguf.GGUFWriter], object]:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop(key, None)
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace_value("tokenizer.ggml.model", "llama"), "tokenizer is 'llama'"),
        (replace_value("tokenizer.ggml.pre", "qwen2"), "'qwen2'; known are"),
        (replace_value("llama.rope.scaling.type", "yarn"), "rope scaling 'yarn'"),
        (replace_value("llama.rope.scaling.type", "longrope"), "has no rope_factors_long.weight"),
        (replace_value("llama.attention.head_count", 0), "head_count must be a whole number above 0, not 0"),
        (replace_value("llama.attention.head_count", [4, 4]), r"head_count must be a number, not \[4, 4\]"),
        (replace_value("tokenizer.ggml.eos_token_id", 262), "eos_token_id is 262, but it has 262 tokens"),
        (replace_value("tokenizer.ggml.bos_token_id", 999), "bos_token_id is 999"),
        (replace_value("tokenizer.ggml.merges", ["ab"]), "merge 'ab' is not two pieces"),
        (lambda writer: writer.add_float32("llama.rope.scaling.factor", 4.0), "scaling by a factor of 4.0"),
        (lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0), "scaling by a factor of 4.0"),
        (lambda writer: writer.add_rope_scaling_attn_factors(1.5), "attn_factor is 1.5; only 1.0 is supported"),
        (lambda writer: writer.kv_data[0].pop("llama.block_count"), "no llama.block_count"),
        (lambda writer: writer.kv_data[0].pop("tokenizer.ggml.tokens"), "no tokenizer"),
        (lambda writer: writer.kv_data[0].pop("tokenizer.ggml.token_type"), "262 tokens, but not as many token types"),
        (lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32)), "unknown: rope_freqs.weight"),
        (lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32)), "blk.0.attn_q.bias"),
        (lambda writer: writer.add_tensor("rope_factors_long.weight", np.ones(8, np.float32)), "both are needed"),
    ],
)
def test_what_is_not_understood_is_named(
    tmp_path: Path, change: Callable[[gguf.GGUFWriter], object], said: str
) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16, change)
    with pytest.raises(CheckpointError, match=said):
        import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_window_that_would_cut_the_context_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "phi3", Quantization.F16, lambda writer: writer.add_sliding_window(100))
    with pytest.raises(ConfigError, match="sliding_window 100"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "model")


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="'mamba'; llama and phi3 can be imported"):
        open_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", Quantization.Q8_0)
    content = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"m\.gguf is truncated or not a GGUF file"):
        open_gguf(tmp_path / "m.gguf")


def test_other_files_are_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("a text that is long enough to be read as a header " * 9)
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        open_gguf(tmp_path / "m.gguf")
    with pytest.raises(CheckpointError, match="absent"):
        open_gguf(tmp_path / "absent.gguf")


def test_the_end_of_turn_of_the_template_ends_an_answer() -> None:
    metadata = {"tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.eos_token_id": 256}
    assert end_token_ids(metadata) == [256]
    assert end_token_ids({**metadata, "tokenizer.chat_template": CHAT_ML}) == [256, 258]
    assert end_token_ids({**metadata, "tokenizer.ggml.eot_token_id": 258}) == [256, 258]
    with pytest.raises(CheckpointError, match="names no token that ends"):
        end_token_ids({"tokenizer.ggml.tokens": TOKENS})


def test_vocabulary_rows_and_tokens_must_agree(tmp_path: Path) -> None:
    def fewer_tokens(writer: gguf.GGUFWriter) -> None:
        for key, values in (("tokens", TOKENS[:-1]), ("token_type", TYPES[:-1])):
            del writer.kv_data[0][f"tokenizer.ggml.{key}"]
            writer.add_array(f"tokenizer.ggml.{key}", values)

    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16, fewer_tokens)
    with pytest.raises(CheckpointError, match="embed_tokens"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "model")


def test_an_imported_model_is_a_released_directory(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16)
    import_gguf(tmp_path / "m.gguf", tmp_path / "model")
    assert open_checkpoint(tmp_path / "model").layout == "released"
    with pytest.raises(CheckpointError, match="not empty"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "model")


@given(st.integers(1, 512).flatmap(lambda head_dim: st.tuples(st.integers(1, head_dim), st.just(head_dim))))
@example((60, 88))
def test_the_share_of_rotary_dimensions_gives_their_number_back(dimensions: tuple[int, int]) -> None:
    rotary_dim, head_dim = dimensions
    share = rotary_share(rotary_dim, head_dim)
    assert int(head_dim * share) == rotary_dim
    assert share <= 1


def test_rows_that_are_no_heads_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "interleave", lambda rows, heads: rows[:-4])
    write_gguf(tmp_path / "m.gguf", "llama", Quantization.F16)
    with pytest.raises(CheckpointError, match=r"qkv_proj\.weight cannot be made of"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "model")
