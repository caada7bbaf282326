"""Turns checkpoints of one form into another, one tensor in memory at a time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from phi4.checkpoint.digest import named_digest
from phi4.checkpoint.directories import (
    COMPANION_FILES,
    NESTED_PREPROCESSOR_FILE,
    PREPROCESSOR_FILE,
    copy_companions,
    write_json,
)
from phi4.checkpoint.fragments import base_config
from phi4.checkpoint.gguf import import_gguf
from phi4.checkpoint.keymap import Layout, is_multimodal, modality_of
from phi4.checkpoint.layouts import ADAPTER_FOLDERS, Checkpoint, open_checkpoint, write_checkpoint
from phi4.checkpoint.packs import add_packs, write_pack
from phi4.checkpoint.shards import MAX_SHARD_BYTES, Progress, specs_of
from phi4.config import ModelConfig
from phi4.errors import CheckpointError
from phi4.files import new_directory

Form = Literal["released", "converted", "packs"]

BASE_FOLDER = "base"

# The preprocessor's file is written from what was read: packs add to it, a base without modalities has none.
_COMPANIONS = [name for name in COMPANION_FILES if name not in (PREPROCESSOR_FILE, NESTED_PREPROCESSOR_FILE)]


def convert(
    source: Path,
    destination: Path,
    form: Form,
    packs: Sequence[Path] = (),
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes a checkpoint in another form, into a new directory that appears complete or not at all.

    Args:
        source: a model directory of either layout, or a GGUF file.
        destination: a new or empty directory.
        form: "released"; "converted" for transformers' native class with PEFT folders; or "packs" for a base language
            model in `base/` and one pack beside it for each modality.
        packs: put onto the source first.
        max_shard_bytes: size above which a new shard is begun.
        progress: told the bytes written so far and in all.

    Raises:
        ConfigError: a configuration file is missing, broken or not supported.
        CheckpointError: the source is broken, or the form cannot hold it.
    """
    if source.suffix == ".gguf":
        if form != "released" or packs:
            raise CheckpointError("a GGUF file is imported into the released layout, without packs")
        import_gguf(source, destination, progress)
        return
    checkpoint = add_packs(open_checkpoint(source), packs)
    with new_directory(destination) as partial:
        if form == "packs":
            _write_packs(checkpoint, partial, max_shard_bytes, progress)
        else:
            _write_directory(checkpoint, form, partial, max_shard_bytes, progress)


def _write_directory(
    checkpoint: Checkpoint, layout: Layout, directory: Path, max_shard_bytes: int, progress: Progress | None
) -> None:
    copy_companions(checkpoint.directory, directory, _COMPANIONS)
    if checkpoint.preprocessor:
        write_json(directory / PREPROCESSOR_FILE, checkpoint.preprocessor)
    write_checkpoint(
        directory,
        checkpoint.config,
        specs_of(checkpoint.tensors),
        lambda name: checkpoint.tensors[name].read(),
        layout,
        checkpoint.generation.eos_token_ids,
        max_shard_bytes,
        progress,
    )


def _write_packs(checkpoint: Checkpoint, directory: Path, max_shard_bytes: int, progress: Progress | None) -> None:
    if not is_multimodal(checkpoint.config):
        raise CheckpointError(f"{checkpoint.directory} is a language model; there is no modality to write as a pack")
    config = checkpoint.config
    lacking = [name for name in ("vision", "speech") if getattr(config, name) and name not in config.adapters]
    if lacking:
        raise CheckpointError(
            f"{checkpoint.directory} has no adapter for {' and '.join(lacking)}, and a pack holds one; put "
            f"{' and '.join(ADAPTER_FOLDERS[name] for name in lacking)}, PEFT's, beside the weights"
        )
    digest = named_digest(checkpoint.config, checkpoint.tensors)
    specs = specs_of(checkpoint.tensors)
    for modality in checkpoint.config.adapters:
        write_pack(
            directory / f"{modality}.safetensors",
            checkpoint.config,
            modality,
            specs,
            lambda name: checkpoint.tensors[name].read(),
            digest,
            trained_on={},
            preprocessor=checkpoint.preprocessor,
        )
    language = [name for name in checkpoint.tensors if modality_of(name) == "language"]
    raw = base_config(checkpoint.config.raw)
    base = replace(
        checkpoint,
        config=ModelConfig(decoder=checkpoint.config.decoder, raw=raw),
        preprocessor={},
        tensors={name.removeprefix("language."): checkpoint.tensors[name] for name in language},
    )
    (directory / BASE_FOLDER).mkdir()
    _write_directory(base, "released", directory / BASE_FOLDER, max_shard_bytes, progress)
