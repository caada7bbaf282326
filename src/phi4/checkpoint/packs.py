"""A pack: one safetensors file that gives a base language model one modality.

It holds the modality's encoder, projector and adapter under the release's names, or under
`model.embed_tokens_extend.NAME_embed` for one from outside. Its metadata says how to build them, for which base (by
digest) they were trained, and on what. The released multimodal directory is a base with two packs in one set of files.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from phi4.checkpoint.digest import named_digest
from phi4.checkpoint.fragments import BUILT_IN, extend_config, own_config, own_preprocessor, placeholder_id
from phi4.checkpoint.keymap import Target, is_multimodal, key_table, match, modality_of
from phi4.checkpoint.layouts import Checkpoint
from phi4.checkpoint.shards import TensorSpec, specs_of, write_file
from phi4.checkpoint.tensor_files import StoredTensor, map_file, read_metadata
from phi4.config import ModelConfig
from phi4.errors import CheckpointError
from phi4.modality import Modality
from phi4.model.multimodal import Phi4Multimodal

FORMAT = "phi4-pack"
VERSION = "1"


@dataclass(frozen=True)
class Pack:
    """A pack file, opened but not read.

    Attributes:
        path: where it is.
        modality: "vision", "speech" or the name of one from outside.
        config: the modality's part of config.json, as `fragments.own_config` returns it.
        base_digest: `digest.base_digest` of the language model that it was trained on.
        trained_on: what the trainer noted about the data; free form.
        preprocessor: the modality's part of preprocessor_config.json.
        placeholder_id: the token that stands for one vector of the modality.
        tensors: by the names in the file.
    """

    path: Path
    modality: str
    config: Mapping[str, Any]
    base_digest: str
    trained_on: Any
    preprocessor: Mapping[str, Any]
    placeholder_id: int
    tensors: Mapping[str, StoredTensor] = field(repr=False)


def stages_of(trained_on: Any) -> list[dict[str, Any]]:
    """The stages that a trainer noted, the first one first; none in what something else wrote."""
    stages = trained_on.get("stages", []) if isinstance(trained_on, dict) else []
    return stages if isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages) else []


def read_pack(path: Path) -> Pack:
    """Opens a pack file.

    Raises:
        CheckpointError: it is not a pack, is truncated, or its metadata is incomplete.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not a pack of version {VERSION}: its metadata says format {metadata.get('format')!r}, "
            f"version {metadata.get('version')!r}. `phi4 train` and `phi4 convert --to packs` write packs"
        )
    try:
        pack = Pack(
            path=path,
            modality=metadata["modality"],
            config=json.loads(metadata["config"]),
            base_digest=metadata["base_digest"],
            trained_on=json.loads(metadata["trained_on"]),
            preprocessor=json.loads(metadata["preprocessor"]),
            placeholder_id=int(metadata["placeholder_id"]),
            tensors=map_file(path),
        )
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the metadata of pack {path} is incomplete: {error!r}") from error
    if not isinstance(pack.config, dict) or not isinstance(pack.preprocessor, dict):
        raise CheckpointError(f"{path}: config and preprocessor in the metadata of a pack must be JSON objects")
    needed = {"embd_layer": dict} if pack.modality in BUILT_IN else {"config": dict, "lora": dict, "token_id": int}
    if not all(isinstance(pack.config.get(key), kind) for key, kind in needed.items()):
        raise CheckpointError(
            f"{path} is a pack for {pack.modality!r} with configuration keys {sorted(pack.config)}; it must be one "
            f"with {'an embd_layer' if pack.modality in BUILT_IN else 'a config, a lora and a token_id'}"
        )
    return pack


def write_pack(
    path: Path,
    config: ModelConfig,
    modality: str,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], torch.Tensor],
    base: str,
    trained_on: Any,
    preprocessor: Mapping[str, Any],
) -> None:
    """Writes one modality of a model as a pack.

    Args:
        path: the file to write.
        config: configuration of the whole model.
        modality: which one.
        specs: dtype and shape of every tensor, by our name; those of other modalities are left out.
        tensor_of: gives the values of a tensor by our name.
        base: digest of the base language model.
        trained_on: anything that JSON can hold.
        preprocessor: the modality's part of preprocessor_config.json.

    Raises:
        CheckpointError: the model does not have the modality.
    """
    placeholder = placeholder_id(config, modality)
    table = _pack_table(config, modality)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "modality": modality,
        "config": json.dumps(own_config(config.raw, modality)),
        "base_digest": base,
        "trained_on": json.dumps(trained_on),
        "preprocessor": json.dumps(own_preprocessor(preprocessor, modality)),
        "placeholder_id": str(placeholder),
    }
    write_file(
        path,
        {name: specs[target.name] for name, target in table.items()},
        lambda name: tensor_of(table[name].name),
        metadata,
    )


def _pack_table(config: ModelConfig, modality: str) -> dict[str, Target]:
    return {
        name: target for name, target in key_table(config, "released").items() if modality_of(target.name) == modality
    }


def save_pack(
    model: Phi4Multimodal,
    modality: str,
    path: Path,
    dtype: torch.dtype,
    base: str,
    trained_on: Any,
    preprocessor: Mapping[str, Any],
) -> None:
    """Writes one modality of a model in memory as a pack of one dtype; `write_pack` explains the other arguments."""
    state = model.state_dict()
    specs = {name: TensorSpec(dtype, spec.shape) for name, spec in specs_of(state).items()}

    def tensor_of(name: str) -> torch.Tensor:
        return state[name].to(dtype)

    write_pack(path, model.config, modality, specs, tensor_of, base, trained_on, preprocessor)


def add_packs(base: Checkpoint, paths: Sequence[Path], modalities: Sequence[Modality] = ()) -> Checkpoint:
    """Puts packs onto a model, without reading the weights of either but for the digest.

    Args:
        base: an opened model.
        paths: pack files, one for each modality; none of them leaves the base as it is.
        modalities: those from outside the package that packs may be for.

    Raises:
        CheckpointError: the base has a modality already, or it comes twice, a pack is for one that is neither built in
            nor among `modalities`, was made for another base, or does not fit its configuration or the decoder.
    """
    if not paths:
        return base
    packs = [read_pack(path) for path in paths]
    _check_modalities(base, packs)
    _check_base(base, packs)
    config = extend_config(base.config, {pack.modality: pack.config for pack in packs}, modalities)
    prefix = "" if is_multimodal(base.config) else "language."
    tensors = {prefix + name: tensor for name, tensor in base.tensors.items()}
    preprocessor = dict(base.preprocessor)
    for pack in packs:
        if placeholder_id(config, pack.modality) != pack.placeholder_id:
            raise CheckpointError(f"{pack.path}: its config and its placeholder_id {pack.placeholder_id} disagree")
        tensors |= match(pack.tensors, _pack_table(config, pack.modality), str(pack.path))
        preprocessor |= own_preprocessor(pack.preprocessor, pack.modality)
    return replace(base, config=config, preprocessor=preprocessor, tensors=tensors)


def _check_modalities(base: Checkpoint, packs: Sequence[Pack]) -> None:
    names = [pack.modality for pack in packs]
    built_in = {"vision": base.config.vision, "speech": base.config.speech}
    inside = [name for name in names if built_in.get(name) is not None]
    if inside:
        raise CheckpointError(
            f"{base.directory} has its modalities inside, {' and '.join(inside)} too; leave the pack out, "
            "or take the base without them"
        )
    if len(set(names)) < len(names):
        raise CheckpointError(f"one pack for each modality, not {', '.join(sorted(names))}")


def _check_base(base: Checkpoint, packs: Sequence[Pack]) -> None:
    digest = named_digest(base.config, base.tensors)
    for pack in packs:
        if pack.base_digest != digest:
            raise CheckpointError(
                f"{pack.path} was made for the base with digest {pack.base_digest}, "
                f"but {base.directory} has digest {digest}; use the base that the pack was trained on"
            )
