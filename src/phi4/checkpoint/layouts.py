"""Model directories of both layouts, opened as one thing: a configuration and mapped tensors by our names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from phi4.checkpoint.config_json import read_config, read_decoder, read_generation, read_speech, read_vision
from phi4.checkpoint.converted import to_native, to_released
from phi4.checkpoint.directories import (
    CONFIG_FILE,
    GENERATION_FILE,
    NESTED_PREPROCESSOR_FILE,
    PREPROCESSOR_FILE,
    write_json,
)
from phi4.checkpoint.keymap import (
    Layout,
    Target,
    adapter_table,
    fixed_dtypes,
    is_multimodal,
    key_table,
    match,
    parameter_shapes,
)
from phi4.checkpoint.peft_folder import PeftFolder, read_peft_folder, write_peft_folder
from phi4.checkpoint.shards import MAX_SHARD_BYTES, Progress, TensorSpec, write_weights
from phi4.checkpoint.tensor_files import StoredTensor, list_some, map_directory
from phi4.config import GenerationConfig, ModelConfig
from phi4.errors import CheckpointError, ConfigError
from phi4.json_file import read_json

NATIVE_MODEL_TYPE = "phi4_multimodal"
ADAPTER_FOLDERS = {"vision": "vision-lora", "speech": "speech-lora"}


@dataclass(frozen=True)
class Checkpoint:
    """A model directory, opened but not read.

    Attributes:
        directory: where it is.
        layout: how its files name the tensors.
        config: the model's configuration; `config.raw` always has the released form.
        generation: what ends an answer.
        preprocessor: how pictures and sounds are prepared; empty for a language model.
        tensors: every tensor of the configuration's model, by our name.
    """

    directory: Path
    layout: Layout
    config: ModelConfig
    generation: GenerationConfig
    preprocessor: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def open_checkpoint(directory: Path) -> Checkpoint:
    """Opens a released or converted model directory and checks that its tensors are those of its configuration.

    Raises:
        ConfigError: `config.json` is missing, broken or not supported.
        CheckpointError: the weights are truncated, pickled, of another dtype, unknown, missing or misshapen.
    """
    raw = read_json(directory / CONFIG_FILE)
    native = raw.get("model_type") == NATIVE_MODEL_TYPE
    folders = _peft_folders(directory) if native else {}
    config = _native_config(raw, folders) if native else read_config(raw)
    layout: Layout = "converted" if native else "released"
    tensors = match(map_directory(directory), key_table(config, layout), str(directory))
    for name, folder in folders.items():
        where = str(directory / ADAPTER_FOLDERS[name])
        tensors |= match(folder.tensors, adapter_table(config, name), where)
    return Checkpoint(
        directory=directory,
        layout=layout,
        config=config,
        generation=read_directory_generation(directory, raw),
        preprocessor=read_preprocessor(directory),
        tensors=tensors,
    )


def _peft_folders(directory: Path) -> dict[str, PeftFolder]:
    present = {name: directory / folder for name, folder in ADAPTER_FOLDERS.items() if (directory / folder).is_dir()}
    return {name: read_peft_folder(folder) for name, folder in present.items()}


def read_directory_generation(directory: Path, raw: Mapping[str, Any]) -> GenerationConfig:
    """Reads what ends an answer from `generation_config.json`, or from `config.json` (`raw`) if that says nothing.

    Raises:
        ConfigError: a file is broken, or neither names a token.
    """
    path = directory / GENERATION_FILE
    generation = read_json(path) if path.is_file() else {}
    return read_generation(generation if "eos_token_id" in generation else raw)


def read_preprocessor(directory: Path) -> dict[str, Any]:
    """Reads `preprocessor_config.json`, or the nested file that transformers 5 writes; without either, it is empty.

    Raises:
        ConfigError: the file is broken, or a part of the nested one is no object.
    """
    if (directory / PREPROCESSOR_FILE).is_file():
        return read_json(directory / PREPROCESSOR_FILE)
    if not (directory / NESTED_PREPROCESSOR_FILE).is_file():
        return {}
    nested = read_json(directory / NESTED_PREPROCESSOR_FILE)
    parts = [nested[part] for part in ("image_processor", "audio_processor", "feature_extractor") if part in nested]
    if not all(isinstance(part, dict) for part in parts):
        raise ConfigError(f"{directory / NESTED_PREPROCESSOR_FILE}: its processors must be objects, not {parts}")
    return {key: value for part in parts for key, value in part.items()}


def _native_config(raw: Mapping[str, Any], folders: Mapping[str, PeftFolder]) -> ModelConfig:
    """Reads a native configuration; without PEFT folders it is a model without adapters, which takes text only."""
    adapters = {name: folder.config for name, folder in folders.items()}
    released = to_released(raw, adapters)
    return ModelConfig(
        decoder=read_decoder(released),
        vision=read_vision(released),
        speech=read_speech(released),
        adapters=adapters,
        raw=released,
    )


def write_checkpoint(
    directory: Path,
    config: ModelConfig,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], torch.Tensor],
    layout: Layout,
    eos_token_ids: Sequence[int],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes configuration and weights into a directory that exists, one tensor at a time.

    Phi-4-Mini has one layout only: transformers reads the released one.

    Args:
        directory: where to; `new_directory` makes one that appears complete or not at all.
        config: the model's configuration; its `raw` is written back, unknown keys included.
        specs: dtype and shape of every tensor, by our name.
        tensor_of: gives the values of a tensor by our name.
        layout: how the files shall name the tensors.
        eos_token_ids: what ends an answer; a native config.json carries it.
        max_shard_bytes: size above which a new shard is begun.
        progress: told the bytes written so far and in all.

    Raises:
        CheckpointError: the layout cannot hold this model, or tensors are not those of the configuration.
    """
    check_layout(config, layout)
    _check_specs(config, specs)
    config = replace(config, raw=_with_dtype(config.raw, specs))
    converted = layout == "converted" and is_multimodal(config)
    write_json(directory / CONFIG_FILE, to_native(config, eos_token_ids) if converted else config.raw)

    def write_table(table: Mapping[str, Target], write: Callable[..., None]) -> None:
        write({name: specs[target.name] for name, target in table.items()}, lambda name: tensor_of(table[name].name))

    write_table(
        key_table(config, layout),
        partial(write_weights, directory, max_shard_bytes=max_shard_bytes, progress=progress),
    )
    if converted:
        for name, folder in ADAPTER_FOLDERS.items():
            write_table(
                adapter_table(config, name), partial(write_peft_folder, directory / folder, config.adapters[name])
            )


def check_layout(config: ModelConfig, layout: Layout) -> None:
    """Checks that files of a layout can hold the model of this configuration.

    Raises:
        CheckpointError: they cannot.
    """
    if config.added:
        raise CheckpointError(
            f"the {layout} layout holds vision and speech only; save {' and '.join(config.added)} as a pack"
        )
    if not is_multimodal(config):
        return
    if config.vision is None or config.speech is None or len(config.adapters) < 2:
        raise CheckpointError(
            f"the {layout} layout holds both modalities with their adapters, and this model lacks one; "
            "save its modality as a pack"
        )
    if layout == "converted" and any(dtype == torch.uint8 for dtype in fixed_dtypes(config).values()):
        raise CheckpointError(
            "the converted layout holds no quantised weights; convert the model before it is quantised"
        )


def _check_specs(config: ModelConfig, specs: Mapping[str, TensorSpec]) -> None:
    announced = {name: spec.shape for name, spec in specs.items()}
    wrong = {name for name, _ in announced.items() ^ parameter_shapes(config).items()}
    if wrong:
        raise CheckpointError(f"the tensors to save are not those of the configuration: {list_some(wrong)}")


def language_dtype(tensors: Mapping[str, TensorSpec] | Mapping[str, StoredTensor]) -> torch.dtype:
    """The type of the token embedding, or of the last norm if the embedding is quantised, by our names."""
    dtypes = {name.removeprefix("language."): tensor.dtype for name, tensor in tensors.items()}
    return dtypes.get("model.embed_tokens.weight") or dtypes["model.norm.weight"]


def _with_dtype(raw: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Corrects the dtype that config.json names, where it names one."""
    dtype = str(language_dtype(specs)).removeprefix("torch.")
    return {key: dtype if key in ("torch_dtype", "dtype") else value for key, value in raw.items()}
