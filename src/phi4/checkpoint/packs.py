"""A pack: one safetensors file that gives a base language model one modality.

It holds the modality's encoder, projector and adapter under the release's names. Its metadata says how to build them,
for which base (by digest) they were trained, and on what. The released multimodal directory is a base with two packs
in one set of files.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from phi4.checkpoint.config_json import read_adapter, read_speech, read_vision
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.keymap import Target, is_multimodal, key_table, match, modality_of
from phi4.checkpoint.layouts import Checkpoint
from phi4.checkpoint.shards import TensorSpec, specs_of, write_file
from phi4.checkpoint.tensor_files import StoredTensor, map_file, read_metadata
from phi4.config import ModelConfig
from phi4.errors import CheckpointError
from phi4.model.multimodal import Phi4Multimodal

FORMAT = "phi4-pack"
VERSION = "1"
MODALITIES = ("vision", "speech")

# Keys of the released config.json that describe one modality, and those that only say "this is multimodal".
_OWN_KEYS = {"vision": ("img_processor", "vision_lora"), "speech": ("audio_processor", "speech_lora")}
_OWN_EMBEDDING = {"vision": "image_embd_layer", "speech": "audio_embd_layer"}
_PREPROCESSOR_KEYS = {
    "vision": ("dynamic_hd", "image_processor_type"),
    "speech": (
        "audio_compression_rate",
        "audio_downsample_rate",
        "audio_feat_stride",
        "compression_rate",
        "feat_stride",
        "feature_extractor_type",
        "qformer_compression_rate",
    ),
}
_SHARED_KEYS = ("_attn_implementation", "architectures", "auto_map", "model_type")


@dataclass(frozen=True)
class Pack:
    """A pack file, opened but not read.

    Attributes:
        path: where it is.
        modality: "vision" or "speech".
        config: the modality's part of the released config.json.
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


def read_pack(path: Path) -> Pack:
    """Opens a pack file.

    Raises:
        CheckpointError: it is not a pack, is truncated, or its metadata is incomplete.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not a pack of version {VERSION}: its metadata says format {metadata.get('format')!r}, "
            f"version {metadata.get('version')!r}"
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
    if pack.modality not in MODALITIES or not isinstance(pack.config.get("embd_layer"), dict):
        raise CheckpointError(
            f"{path} is a pack for {pack.modality!r} with configuration keys {sorted(pack.config)}; it must be one for "
            f"{' or '.join(MODALITIES)}, with an embd_layer"
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
        modality: "vision" or "speech".
        specs: dtype and shape of every tensor, by our name; those of other modalities are left out.
        tensor_of: gives the values of a tensor by our name.
        base: digest of the base language model.
        trained_on: anything that JSON can hold.
        preprocessor: the modality's part of preprocessor_config.json.

    Raises:
        CheckpointError: the model does not have the modality.
    """
    table = _pack_table(config, modality)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "modality": modality,
        "config": json.dumps(_own_config(config.raw, modality)),
        "base_digest": base,
        "trained_on": json.dumps(trained_on),
        "preprocessor": json.dumps(_own_preprocessor(preprocessor, modality)),
        "placeholder_id": str(_placeholder_id(config, modality)),
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


def _placeholder_id(config: ModelConfig, modality: str) -> int:
    if modality == "vision" and config.vision is not None and "vision" in config.adapters:
        return config.vision.image_token_id
    if modality == "speech" and config.speech is not None and "speech" in config.adapters:
        return config.speech.audio_token_id
    raise CheckpointError(f"this model has no {modality} to save as a pack; it has {sorted(config.adapters) or 'none'}")


def _own_config(raw: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """Takes one modality's keys out of a released config.json, so that base and packs together give it back."""
    embedding = raw["embd_layer"]
    foreign = [key for name, key in _OWN_EMBEDDING.items() if name != modality]
    return {
        **{key: raw[key] for key in (*_SHARED_KEYS, *_OWN_KEYS[modality]) if key in raw},
        "embd_layer": {key: value for key, value in embedding.items() if key not in foreign},
    }


def base_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Takes everything multimodal out of a released config.json: what is left describes a `phi3` base."""
    removed = {*_SHARED_KEYS, *_OWN_KEYS["vision"], *_OWN_KEYS["speech"], "embd_layer"}
    return {
        **{key: value for key, value in raw.items() if key not in removed},
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
    }


def _own_preprocessor(preprocessor: Mapping[str, Any], modality: str) -> dict[str, Any]:
    foreign = _PREPROCESSOR_KEYS["speech" if modality == "vision" else "vision"]
    return {key: value for key, value in preprocessor.items() if key not in foreign}


def save_pack(
    model: Phi4Multimodal,
    modality: str,
    path: Path,
    base: str,
    trained_on: Any,
    preprocessor: Mapping[str, Any],
) -> None:
    """Writes one modality of a model in memory as a pack; `write_pack` says what the arguments are."""
    state = model.state_dict()
    write_pack(path, model.config, modality, specs_of(state), state.__getitem__, base, trained_on, preprocessor)


def add_packs(base: Checkpoint, paths: Sequence[Path]) -> Checkpoint:
    """Puts packs onto a base language model, without reading the weights of either but for the digest.

    Args:
        base: an opened language model.
        paths: pack files, one for each modality; none of them leaves the base as it is.

    Raises:
        CheckpointError: the base is multimodal already, a modality comes twice, a pack was made for another base, or
            its tensors do not fit its configuration or the decoder.
    """
    if not paths:
        return base
    packs = [read_pack(path) for path in paths]
    if is_multimodal(base.config):
        raise CheckpointError(f"{base.directory} has its modalities inside; packs go onto a base without any")
    modalities = [pack.modality for pack in packs]
    if len(set(modalities)) < len(modalities):
        raise CheckpointError(f"one pack for each modality, not {', '.join(sorted(modalities))}")
    digest = base_digest(base.tensors)
    for pack in packs:
        if pack.base_digest != digest:
            raise CheckpointError(
                f"{pack.path} was made for the base with digest {pack.base_digest}, "
                f"but {base.directory} has digest {digest}; use the base that the pack was trained on"
            )
    config = _combined_config(base.config, packs)
    tensors = {f"language.{name}": tensor for name, tensor in base.tensors.items()}
    for pack in packs:
        if _placeholder_id(config, pack.modality) != pack.placeholder_id:
            raise CheckpointError(f"{pack.path}: its config and its placeholder_id {pack.placeholder_id} disagree")
        tensors |= match(pack.tensors, _pack_table(config, pack.modality), str(pack.path))
    preprocessor: dict[str, Any] = {}
    for pack in packs:
        preprocessor |= _own_preprocessor(pack.preprocessor, pack.modality)
    return replace(base, config=config, preprocessor={**base.preprocessor, **preprocessor}, tensors=tensors)


def _combined_config(base: ModelConfig, packs: Sequence[Pack]) -> ModelConfig:
    """Adds the packs' modalities to the base's configuration; what else a pack says never touches the decoder."""
    raw = dict(base.raw)
    for pack in packs:
        own = _own_config(pack.config, pack.modality)
        raw |= {**own, "embd_layer": {**raw.get("embd_layer", {}), **own["embd_layer"]}}
    modalities = {pack.modality for pack in packs}
    return ModelConfig(
        decoder=base.decoder,
        vision=read_vision(raw) if "vision" in modalities else None,
        speech=read_speech(raw) if "speech" in modalities else None,
        adapters={name: read_adapter(raw, f"{name}_lora") for name in MODALITIES if name in modalities},
        raw=raw,
    )
