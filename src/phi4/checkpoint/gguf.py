"""Imports GGUF files of `llama` and `phi3` models: dequantised, renamed and written as a released directory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from phi4.checkpoint.config_json import read_config
from phi4.checkpoint.directories import GENERATION_FILE, write_json
from phi4.checkpoint.gguf_tokenizer import end_token_ids, write_gguf_tokenizer
from phi4.checkpoint.keymap import parameter_shapes
from phi4.checkpoint.layouts import write_checkpoint
from phi4.checkpoint.shards import Progress, TensorSpec
from phi4.checkpoint.tensor_files import list_some
from phi4.config import DecoderConfig
from phi4.errors import CheckpointError
from phi4.files import new_directory
from phi4.model.rope import longrope_scale

ARCHITECTURES = ("llama", "phi3")
_LONG_FACTORS, _SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"

# What the gguf package's reader raises on files that are cut off or not GGUF.
_READER_ERRORS = (ValueError, IndexError, KeyError, OverflowError, OSError, TypeError)


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, opened but not dequantised.

    Attributes:
        path: where it is.
        architecture: "llama" or "phi3".
        metadata: values by key.
        tensors: by their names in the file, data still quantised.
    """

    path: Path
    architecture: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, ReaderTensor]

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a number of the model's own section, such as `rope.freq_base`.

        Raises:
            CheckpointError: it is no number, or the file does not have it and there is no default.
        """
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise CheckpointError(f"{self.path} has no {self.architecture}.{key}; it is incomplete")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"{self.path}: {self.architecture}.{key} must be a number, not {value!r}")
        return _shortest(value)

    def size(self, key: str, default: int | None = None) -> int:
        """Returns a whole number of at least 1 of the model's own section, such as `block_count`.

        Raises:
            CheckpointError: it is something else, or the file does not have it and there is no default.
        """
        value = self.number(key, default)
        if value < 1 or value != int(value):
            raise CheckpointError(f"{self.path}: {self.architecture}.{key} must be a whole number above 0, not {value}")
        return int(value)

    def read(self, name: str) -> np.ndarray:
        """Dequantises one tensor to fp32."""
        tensor = self.tensors[name]
        try:
            return dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError as error:
            raise CheckpointError(f"{self.path}: {name} is stored as {tensor.tensor_type.name}: {error}") from error


def _shortest(value: float) -> float:
    """Turns the fp32 number 9.99999974e-06 into the 1e-05 that was meant."""
    return float(str(np.float32(value)))


def open_gguf(path: Path) -> GgufFile:
    """Opens a GGUF file.

    Raises:
        CheckpointError: it is truncated, not GGUF, or of another architecture.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no GGUF file {str(path)!r}")
    try:
        reader = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except _READER_ERRORS as error:
        raise CheckpointError(
            f"{path} is truncated or not a GGUF file ({type(error).__name__}: {error}); download it again"
        ) from error
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} holds a model of architecture {architecture!r}; {' and '.join(ARCHITECTURES)} can be imported"
        )
    return GgufFile(path, architecture, metadata, {tensor.name: tensor for tensor in reader.tensors})


def import_gguf(path: Path, destination: Path, progress: Progress | None = None) -> None:
    """Writes a GGUF file's model as a new released directory in bfloat16, tokenizer and chat template included.

    Raises:
        CheckpointError: the file is truncated, of another architecture, has tensors or a tokenizer that are not
            understood, or the destination is not empty.
    """
    file = open_gguf(path)
    with new_directory(destination) as partial:
        write_gguf_model(file, partial, progress)


def write_gguf_model(file: GgufFile, directory: Path, progress: Progress | None = None) -> None:
    """Writes the model of an opened GGUF file into a directory that exists."""
    eos_token_ids = end_token_ids(file.metadata)
    raw = _released_config(file)
    config = read_config(raw)
    _check_attention_factor(file, config.decoder)
    sources = _sources(file.architecture, config.decoder)
    _check_tensors(file, sources)
    write_gguf_tokenizer(file.metadata, directory, config.decoder.max_position_embeddings)
    generation = {
        "bos_token_id": raw["bos_token_id"],
        "eos_token_id": eos_token_ids,
        "pad_token_id": raw["pad_token_id"],
    }
    write_json(directory / GENERATION_FILE, generation)

    def tensor_of(name: str) -> torch.Tensor:
        try:
            rows = np.concatenate([_half_split(file.read(source), heads) for source, heads in sources[name]])
        except ValueError as error:
            parts = {source: file.tensors[source].shape.tolist()[::-1] for source, _ in sources[name]}
            raise CheckpointError(f"{file.path}: {name} cannot be made of {parts}: {error}") from error
        return torch.from_numpy(rows).to(torch.bfloat16)

    specs = {name: TensorSpec(torch.bfloat16, shape) for name, shape in parameter_shapes(config).items()}
    write_checkpoint(directory, config, specs, tensor_of, "released", eos_token_ids, progress=progress)


def _released_config(file: GgufFile) -> dict[str, Any]:
    """Writes the metadata as the config.json of a `phi3` model."""
    scaling = file.metadata.get(f"{file.architecture}.rope.scaling.type")
    if scaling not in (None, "none", "longrope"):
        raise CheckpointError(f"{file.path}: rope scaling {scaling!r} is not supported")
    # Without a type, llama.cpp takes a factor for that of linear scaling; the second key is its old name.
    factor = file.number("rope.scaling.factor", file.number("rope.scale_linear", 1.0))
    if scaling is None and factor not in (0.0, 1.0):
        raise CheckpointError(f"{file.path}: rope scaling by a factor of {factor} is not supported")
    hidden, heads = file.size("embedding_length"), file.size("attention.head_count")
    head_dim = file.size("attention.key_length", hidden // heads)
    context = file.size("context_length")
    window = file.metadata.get(f"{file.architecture}.attention.sliding_window")
    eos = end_token_ids(file.metadata)[0]
    return {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id", eos),
        "embd_pdrop": 0.0,
        "eos_token_id": eos,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": file.size("feed_forward_length"),
        "max_position_embeddings": context,
        "model_type": "phi3",
        "num_attention_heads": heads,
        "num_hidden_layers": file.size("block_count"),
        "num_key_value_heads": file.size("attention.head_count_kv", heads),
        "original_max_position_embeddings": file.size("rope.scaling.original_context_length", context),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id", eos),
        "partial_rotary_factor": rotary_share(file.size("rope.dimension_count", head_dim), head_dim),
        "resid_pdrop": 0.0,
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
        "rope_scaling": _rope_scaling(file),
        "rope_theta": file.number("rope.freq_base", 10000.0),
        "sliding_window": window if window else None,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(file.metadata.get("tokenizer.ggml.tokens", ())),
    }


def rotary_share(rotary_dim: int, head_dim: int) -> float:
    """Returns the `partial_rotary_factor` that gives back `rotary_dim` when its product with `head_dim` is cut off.

    60 / 88 alone does not: 88 * (60 / 88) is just below 60.
    """
    share = rotary_dim / head_dim
    return share if int(head_dim * share) == rotary_dim else math.nextafter(share, math.inf)


def _rope_scaling(file: GgufFile) -> dict[str, Any] | None:
    if file.metadata.get(f"{file.architecture}.rope.scaling.type") == "longrope" and _LONG_FACTORS not in file.tensors:
        raise CheckpointError(f"{file.path} asks for longrope but has no {_LONG_FACTORS}; convert it again")
    if _LONG_FACTORS not in file.tensors and _SHORT_FACTORS not in file.tensors:
        return None
    if _LONG_FACTORS not in file.tensors or _SHORT_FACTORS not in file.tensors:
        raise CheckpointError(f"{file.path} has only one of {_LONG_FACTORS} and {_SHORT_FACTORS}; both are needed")
    return {
        "long_factor": [_shortest(value) for value in file.read(_LONG_FACTORS)],
        "short_factor": [_shortest(value) for value in file.read(_SHORT_FACTORS)],
        "type": "longrope",
    }


def _check_attention_factor(file: GgufFile, decoder: DecoderConfig) -> None:
    """The file may carry LongRoPE's constant; ours follows from the two context lengths."""
    expected = longrope_scale(decoder) if decoder.rope_scaling is not None else 1.0
    stored = file.number("rope.scaling.attn_factor", expected)
    if not math.isclose(stored, expected, rel_tol=1e-5):
        raise CheckpointError(f"{file.path}: rope.scaling.attn_factor is {stored}; only {expected} is supported")


# Names of the tensors in the file that are stacked into one of ours, each with the number of its heads if its rows
# stand in interleaved order, else None.
Source = tuple[str, int | None]


def _sources(architecture: str, decoder: DecoderConfig) -> dict[str, tuple[Source, ...]]:
    """The key table of GGUF files: our name -> where its rows come from."""
    table: dict[str, tuple[Source, ...]] = {
        "model.embed_tokens.weight": (("token_embd.weight", None),),
        "model.norm.weight": (("output_norm.weight", None),),
    }
    if not decoder.tie_word_embeddings:
        table["lm_head.weight"] = (("output.weight", None),)
    for layer in range(decoder.num_hidden_layers):
        block, ours = f"blk.{layer}", f"model.layers.{layer}"
        table |= {
            f"{ours}.input_layernorm.weight": ((f"{block}.attn_norm.weight", None),),
            f"{ours}.self_attn.o_proj.weight": ((f"{block}.attn_output.weight", None),),
            f"{ours}.post_attention_layernorm.weight": ((f"{block}.ffn_norm.weight", None),),
            f"{ours}.mlp.down_proj.weight": ((f"{block}.ffn_down.weight", None),),
        }
        if architecture == "phi3":
            table[f"{ours}.self_attn.qkv_proj.weight"] = ((f"{block}.attn_qkv.weight", None),)
            table[f"{ours}.mlp.gate_up_proj.weight"] = ((f"{block}.ffn_up.weight", None),)
        else:
            table[f"{ours}.self_attn.qkv_proj.weight"] = (
                (f"{block}.attn_q.weight", decoder.num_attention_heads),
                (f"{block}.attn_k.weight", decoder.num_key_value_heads),
                (f"{block}.attn_v.weight", None),
            )
            table[f"{ours}.mlp.gate_up_proj.weight"] = (
                (f"{block}.ffn_gate.weight", None),
                (f"{block}.ffn_up.weight", None),
            )
    return table


def _check_tensors(file: GgufFile, sources: Mapping[str, tuple[Source, ...]]) -> None:
    needed = {source for parts in sources.values() for source, _ in parts}
    unknown = file.tensors.keys() - needed - {_LONG_FACTORS, _SHORT_FACTORS}
    missing = needed - file.tensors.keys()
    if unknown or missing:
        raise CheckpointError(
            f"{file.path} does not hold the tensors of a {file.architecture} model of its sizes; "
            f"unknown: {list_some(unknown) or 'none'}; missing: {list_some(missing) or 'none'}"
        )


def _half_split(rows: np.ndarray, heads: int | None) -> np.ndarray:
    """Brings the rows of q or k from interleaved order, (0, half), (1, half + 1), …, to two halves per head."""
    if heads is None:
        return rows
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
