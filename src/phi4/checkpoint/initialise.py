"""Writes random checkpoints in the released layout, complete with tokenizer, one tensor in memory at a time."""

import hashlib
from pathlib import Path

import torch

from phi4.checkpoint.config_json import read_generation
from phi4.checkpoint.directories import GENERATION_FILE, PREPROCESSOR_FILE, copy_companions, write_json
from phi4.checkpoint.keymap import parameter_shapes
from phi4.checkpoint.layouts import write_checkpoint
from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.o200k import phi4_tokenizer
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.shards import MAX_SHARD_BYTES, Progress, TensorSpec
from phi4.checkpoint.tokenizer_files import write_tiny_tokenizer
from phi4.files import new_directory

# Normalisations start as the identity: layer norms, RMS norms, the inverse deviation of the mel channels.
_ONES = ("norm.weight", "norm1.weight", "norm2.weight", "layer_norm_att.weight", "global_invstd")
_ZEROS = ("bias", "b1", "b2", "global_mean")


def initialise(
    preset: str,
    directory: Path,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes a random checkpoint of a preset: configuration, weights, tokenizer, generation and preprocessor files.

    Every tensor depends on the seed and its own name alone. Matrices are normal with the configuration's
    `initializer_range` as deviation, both LoRA matrices included, so that adapters have an effect.

    Args:
        preset: "tiny", "nano", "mini" or "multimodal".
        directory: a new or empty directory.
        seed: chooses the weights.
        dtype: of all weights.
        max_shard_bytes: size above which a new shard is begun.
        progress: told the bytes written so far and in all.

    Raises:
        ConfigError: there is no such preset.
        CheckpointError: the directory is not empty.
        Phi4Error: the tokenizer cannot be downloaded (all presets but `tiny` need that once).
    """
    chosen = load_preset(preset)
    deviation = float(chosen.config.raw["initializer_range"])
    specs = {name: TensorSpec(dtype, shape) for name, shape in parameter_shapes(chosen.config).items()}
    with new_directory(directory) as partial:
        _write_tokenizer(preset, partial)
        write_json(partial / GENERATION_FILE, chosen.generation)
        if chosen.preprocessor:
            write_json(partial / PREPROCESSOR_FILE, chosen.preprocessor)
        write_checkpoint(
            partial,
            chosen.config,
            specs,
            lambda name: random_tensor(name, specs[name], seed, deviation),
            "released",
            read_generation(chosen.generation).eos_token_ids,
            max_shard_bytes,
            progress,
        )


def random_tensor(name: str, spec: TensorSpec, seed: int, deviation: float) -> torch.Tensor:
    """Draws the initial values of one tensor.

    Args:
        name: our name of the tensor; it decides the kind of value and, with the seed, the values.
        spec: dtype and shape.
        seed: of the whole checkpoint.
        deviation: standard deviation of matrices, embeddings and convolution kernels.
    """
    if name.endswith(_ONES):
        return torch.ones(spec.shape, dtype=spec.dtype)
    if name.endswith(_ZEROS):
        return torch.zeros(spec.shape, dtype=spec.dtype)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.empty(spec.shape, dtype=spec.dtype).normal_(0.0, deviation, generator=generator)


def _write_tokenizer(preset: str, directory: Path) -> None:
    if preset == "tiny":
        write_tiny_tokenizer(directory)
    elif preset == "nano":
        copy_companions(pull_nano(), directory)
    else:
        copy_companions(phi4_tokenizer(multimodal=preset == "multimodal"), directory)
