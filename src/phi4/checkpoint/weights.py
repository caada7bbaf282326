"""Loads a model from a directory, and saves one: mapped on the way in, tensor by tensor on the way out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phi4.checkpoint.directories import GENERATION_FILE, copy_companions, write_json
from phi4.checkpoint.keymap import Layout, empty_model, fixed_dtypes
from phi4.checkpoint.layouts import Checkpoint, open_checkpoint, read_directory_generation, write_checkpoint
from phi4.checkpoint.packs import add_packs
from phi4.checkpoint.shards import MAX_SHARD_BYTES, Progress, TensorSpec, specs_of
from phi4.checkpoint.tensor_files import list_some
from phi4.checkpoint.usual_dtype import stored_dtype
from phi4.config import GenerationConfig, ModelConfig
from phi4.errors import CheckpointError, ConfigError
from phi4.files import new_directory
from phi4.json_file import read_json
from phi4.kernels.quantised import LARGEST_BYTE, largest_value
from phi4.modality import Modality
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal


@dataclass(frozen=True)
class LoadedModel:
    """A model with what its directory says about using it.

    Attributes:
        model: `Phi4Mini`, or `Phi4Multimodal` if the directory or a pack brings a modality; without gradients.
        config: its configuration.
        generation: what ends an answer.
        preprocessor: `preprocessor_config.json`, or what the packs carry of it.
        directory: where tokenizer and chat template are.
    """

    model: Phi4Mini | Phi4Multimodal
    config: ModelConfig
    generation: GenerationConfig
    preprocessor: Mapping[str, Any]
    directory: Path


def load_model(
    directory: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    packs: Sequence[Path] = (),
    modalities: Sequence[Modality] = (),
) -> LoadedModel:
    """Loads a released or converted model directory, with packs on top if some are named.

    The files are mapped. On the CPU, a tensor that is stored in `dtype` stays a view of the map and costs no memory
    of its own; any other is converted by itself, so that the weights are in memory once.

    Args:
        directory: the model directory.
        dtype: of all weights that are not quantised; None keeps that of the stored token embedding.
        device: where the weights go.
        packs: files that each add one modality.
        modalities: those from outside the package that packs may be for.

    Raises:
        ConfigError: a configuration file is missing, broken or not supported, or a modality from outside keeps state
            that is not stored.
        CheckpointError: weights are truncated, pickled, unknown, missing, misshapen or made for another base.
    """
    checkpoint = add_packs(open_checkpoint(directory), packs, modalities)
    return LoadedModel(
        model=_build(checkpoint, dtype, torch.device(device)),
        config=checkpoint.config,
        generation=checkpoint.generation,
        preprocessor=checkpoint.preprocessor,
        directory=directory,
    )


def _build(checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> Phi4Mini | Phi4Multimodal:
    if dtype is None:
        dtype = stored_dtype(checkpoint)
    fixed = fixed_dtypes(checkpoint.config)
    _check_quantised(checkpoint, fixed)
    state = {
        name: tensor.read().to(device=device, dtype=fixed.get(name, dtype))
        for name, tensor in checkpoint.tensors.items()
    }
    model = empty_model(checkpoint.config)
    model.load_state_dict(state, assign=True)
    unknown = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unknown:
        raise ConfigError(
            f"the buffers {list_some(unknown)} are not stored; register them as persistent, or compute them when needed"
        )
    return model.requires_grad_(False).eval()


def _check_quantised(checkpoint: Checkpoint, fixed: Mapping[str, torch.dtype]) -> None:
    """Makes sure that scales are numbers, and that codes of 4 bits stand for numbers of 8 bits.

    Raises:
        CheckpointError: some are not.
    """
    for name in fixed:
        stored = checkpoint.tensors[name]
        damage = ""
        if name.endswith(".steps") and (largest := largest_value(stored.read())) > LARGEST_BYTE:
            damage = f"its steps lead to {largest}, and weights are at most {LARGEST_BYTE}"
        elif name.endswith(".scales") and not stored.read().isfinite().all():
            damage = "it holds scales that are no numbers"
        if damage:
            raise CheckpointError(
                f"{stored.path}: {stored.name} is damaged: {damage}; quantise the model again, or copy the file again"
            )


def save_model(
    model: Phi4Mini | Phi4Multimodal,
    config: ModelConfig,
    directory: Path,
    layout: Layout = "released",
    *,
    companions: Path | None = None,
    generation: GenerationConfig | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Saves a model as a directory that loads here, in transformers and, with its adapters, in PEFT.

    Args:
        model: the model.
        config: its configuration; `config.raw` is written back, unknown keys included.
        directory: a new or empty directory; it appears complete or not at all.
        layout: "released", or "converted" for transformers' native multimodal class with PEFT folders.
        companions: directory whose tokenizer, template, generation and preprocessor files are copied.
        generation: what ends an answer, always written to generation_config.json; None takes what the companions say,
            else `eos_token_id` of `config.raw`.
        dtype: of all weights, of a model that is not quantised; None keeps what they have.
        max_shard_bytes: size above which a new shard is begun.
        progress: told the bytes written so far and in all.

    Raises:
        ConfigError: nothing says what ends an answer.
        CheckpointError: the directory is not empty, or the layout cannot hold this model.
    """
    state = model.state_dict()
    specs = {name: TensorSpec(dtype or spec.dtype, spec.shape) for name, spec in specs_of(state).items()}
    with new_directory(directory) as partial:
        if companions is not None:
            copy_companions(companions, partial)
        eos_token_ids = (generation or read_directory_generation(partial, config.raw)).eos_token_ids
        _write_end_tokens(partial / GENERATION_FILE, eos_token_ids)
        write_checkpoint(
            partial,
            config,
            specs,
            lambda name: state[name].to(specs[name].dtype),
            layout,
            eos_token_ids,
            max_shard_bytes,
            progress,
        )


def _write_end_tokens(path: Path, eos_token_ids: Sequence[int]) -> None:
    """Sets the stop ids in `generation_config.json`, beside what a copied file already says."""
    copied = read_json(path) if path.is_file() else {}
    write_json(path, {**copied, "eos_token_id": list(eos_token_ids)})
