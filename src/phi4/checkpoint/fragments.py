"""What each modality says in a configuration: taken out for its pack, put onto a base."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from phi4.checkpoint.config_json import read_adapter, read_speech, read_vision
from phi4.checkpoint.json_values import section, size
from phi4.config import AdapterConfig, ModelConfig
from phi4.errors import CheckpointError, ConfigError
from phi4.modality import AddedModality, Modality

BUILT_IN = ("vision", "speech")

# The key of config.json under which modalities from outside stand, by name.
ADDED_KEY = "modalities"

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

# Matches all four linears of a layer, as `vision_lora.layer` of the release does.
_ADAPTED_LAYERS = r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))"


def own_config(raw: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """Takes one modality's part out of a config.json, so that base and packs together give it back.

    For `vision` and `speech` it is some keys of the released file; for one from outside, what `added_fragment` returns.
    """
    if modality not in BUILT_IN:
        return dict(raw[ADDED_KEY][modality])
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


def own_preprocessor(preprocessor: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """Takes one modality's part out of a preprocessor_config.json; one from outside has its config instead."""
    if modality not in BUILT_IN:
        return {}
    foreign = _PREPROCESSOR_KEYS["speech" if modality == "vision" else "vision"]
    return {key: value for key, value in preprocessor.items() if key not in foreign}


def added_fragment(config: Mapping[str, Any], adapter: AdapterConfig, token_id: int) -> dict[str, Any]:
    """Writes down a modality from outside: what its `read_config` takes, its adapter and its placeholder."""
    lora = {"r": adapter.rank, "lora_alpha": adapter.alpha, "dp": adapter.dropout, "layer": _ADAPTED_LAYERS}
    return {"config": dict(config), "lora": lora, "token_id": token_id}


def read_own_adapter(fragment: Mapping[str, Any], modality: str) -> AdapterConfig:
    """Reads the adapter from one modality's part of a config.json."""
    return read_adapter(fragment, f"{modality}_lora" if modality in BUILT_IN else "lora")


def extend_config(
    base: ModelConfig, fragments: Mapping[str, Mapping[str, Any]], modalities: Sequence[Modality]
) -> ModelConfig:
    """Adds modalities to a configuration; what else their parts say never touches the decoder.

    Args:
        base: the configuration of a language model, with other modalities or without any.
        fragments: by modality, its part of config.json as `own_config` returns it.
        modalities: those from outside that may be among them.

    Raises:
        CheckpointError: one from outside is not among `modalities`.
        ConfigError: a part cannot be read.
    """
    raw = dict(base.raw)
    for name, fragment in fragments.items():
        if name in BUILT_IN:
            own = own_config(fragment, name)
            raw |= {**own, "embd_layer": {**raw.get("embd_layer", {}), **own["embd_layer"]}}
        else:
            raw[ADDED_KEY] = {**raw.get(ADDED_KEY, {}), name: fragment}
    foreign = [name for name in fragments if name not in BUILT_IN]
    adapters = {name: read_own_adapter(fragments[name], name) for name in (*BUILT_IN, *foreign) if name in fragments}
    return replace(
        base,
        vision=read_vision(raw) if "vision" in fragments else base.vision,
        speech=read_speech(raw) if "speech" in fragments else base.speech,
        adapters={**base.adapters, **adapters},
        raw=raw,
        added={**base.added, **{name: _read_added(name, fragments[name], modalities) for name in foreign}},
    )


def _read_added(name: str, fragment: Mapping[str, Any], modalities: Sequence[Modality]) -> AddedModality:
    named = [modality for modality in modalities if modality.name == name]
    if len(named) != 1:
        raise CheckpointError(
            f"the modality {name!r} comes from outside this package and needs its Modality, once: "
            f"load it in Python with modalities=[...]; {len(named)} of that name are given"
        )
    given = section(fragment, "config")
    try:
        config = named[0].read_config(given)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the modality {name!r} cannot use its configuration {dict(given)}: {error!r}") from error
    return AddedModality(named[0], config, size(fragment, "token_id", at_least=0))


def placeholder_id(config: ModelConfig, modality: str) -> int:
    """Returns the token that stands for one vector of a modality.

    Raises:
        CheckpointError: the model does not have the modality, or no adapter for it.
    """
    ids = {name: added.token_id for name, added in config.added.items()}
    if config.vision is not None:
        ids["vision"] = config.vision.image_token_id
    if config.speech is not None:
        ids["speech"] = config.speech.audio_token_id
    if modality not in ids or modality not in config.adapters:
        raise CheckpointError(
            f"this model has no {modality} to save as a pack; it has {sorted(config.adapters) or 'none'}"
        )
    return ids[modality]
