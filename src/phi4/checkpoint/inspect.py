"""Says what a checkpoint or a pack holds, from its headers; only digests read the weights."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from phi4.checkpoint.digest import check_codes, named_digest
from phi4.checkpoint.fragments import read_own_adapter
from phi4.checkpoint.keymap import adapter_of, added_of, file_name, parameter_shapes
from phi4.checkpoint.layouts import Checkpoint, open_checkpoint
from phi4.checkpoint.packs import Pack, read_pack, stages_of
from phi4.checkpoint.tensor_files import DTYPE_NAMES, StoredTensor
from phi4.config import AdapterConfig, DecoderConfig, ModelConfig
from phi4.errors import CheckpointError
from phi4.kernels.quantised import BLOCK_OUTPUTS, GROUP_INPUTS
from phi4.model.paged_cache import bytes_per_token

# Beginning of a released name -> component; the first that fits decides. Facts sheet 6.4.
_PREFIXES = {
    "model.embed_tokens_extend.image_embed.img_processor.": "vision_encoder",
    "model.embed_tokens_extend.image_embed.": "vision_projector",
    "model.embed_tokens_extend.audio_embed.encoder.encoder_embedding.": "audio_buffers",
    "model.embed_tokens_extend.audio_embed.encoder.": "audio_encoder",
    "model.embed_tokens_extend.audio_embed.": "audio_projectors",
    "": "language",
}
COMPONENTS = (
    "language",
    "vision_lora",
    "speech_lora",
    "vision_encoder",
    "vision_projector",
    "audio_encoder",
    "audio_projectors",
    "audio_buffers",
)


@dataclass(frozen=True)
class AdapterReport:
    """One adapter: its rank, and the factor on B(A(x))."""

    rank: int
    scale: float


@dataclass(frozen=True)
class CacheReport:
    """The key/value cache of a decoder.

    Attributes:
        bytes_per_token: what one token adds to a cache of bfloat16.
        bytes_per_token_8bit: what one token adds to a cache of 8 bits.
        context_tokens: the longest context.
        share_of_multi_head: relative to one key and value head for every query head.
    """

    bytes_per_token: int
    bytes_per_token_8bit: int
    context_tokens: int
    share_of_multi_head: float

    @classmethod
    def from_config(cls, config: DecoderConfig) -> "CacheReport":
        """Computes the cache's size from the decoder's."""
        return cls(
            bytes_per_token=bytes_per_token(config, torch.bfloat16),
            bytes_per_token_8bit=bytes_per_token(config, torch.int8),
            context_tokens=config.max_position_embeddings,
            share_of_multi_head=config.num_key_value_heads / config.num_attention_heads,
        )


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint or a pack holds.

    Attributes:
        path: the directory or the pack file.
        layout: "released", "converted" or "pack".
        values: how many values each component holds (facts sheet 6.4); of a quantised matrix, its weights.
        total_values: their sum.
        total_bytes: what all tensors take.
        num_tensors: how many tensors are stored.
        dtypes: how many tensors are stored in each dtype.
        adapters: by name.
        base_digest: of the language model; for a pack, of the one that it was trained on.
        cache: of the language model; None for a pack.
        stages: that a pack was trained in, in their order, as its trainer noted them.
    """

    path: Path
    layout: str
    values: Mapping[str, int]
    total_values: int
    total_bytes: int
    num_tensors: int
    dtypes: Mapping[str, int]
    adapters: Mapping[str, AdapterReport]
    base_digest: str
    cache: CacheReport | None
    stages: tuple[str, ...] = ()


def inspect_checkpoint(path: Path) -> Inspection:
    """Inspects a model directory or a pack file.

    Raises:
        ConfigError: a configuration file is missing, broken or not supported.
        CheckpointError: the files are broken or contradict the configuration.
    """
    if path.is_dir():
        return _inspect_directory(open_checkpoint(path))
    if path.suffix == ".gguf":
        raise CheckpointError(f"{path} is a GGUF file; import it with `phi4 convert`, then inspect the directory")
    return _inspect_pack(read_pack(path))


def _inspect_directory(checkpoint: Checkpoint) -> Inspection:
    check_codes(checkpoint.config, checkpoint.tensors, str(checkpoint.directory))
    exact = _before_quantisation(checkpoint.config)
    released = {file_name(name, "released"): tensor for name, tensor in checkpoint.tensors.items()}
    return _report(
        path=checkpoint.directory,
        layout=checkpoint.layout,
        tensors=released,
        values={file_name(name, "released"): math.prod(shape) for name, shape in parameter_shapes(exact).items()},
        adapters=checkpoint.config.adapters,
        digest=named_digest(checkpoint.config, checkpoint.tensors),
        cache=CacheReport.from_config(checkpoint.config.decoder),
    )


def _inspect_pack(pack: Pack) -> Inspection:
    adapter = read_own_adapter(pack.config, pack.modality)
    report = _report(
        path=pack.path,
        layout="pack",
        tensors=pack.tensors,
        values={name: _num_weights(name, tensor) for name, tensor in pack.tensors.items()},
        adapters={pack.modality: adapter},
        digest=pack.base_digest,
        cache=None,
    )
    return replace(report, stages=tuple(map(_describe_stage, stages_of(pack.trained_on))))


def _describe_stage(stage: Mapping[str, Any]) -> str:
    return f"{stage.get('stage')}, {stage.get('steps')} steps on {', '.join(stage.get('sources', ()))}"


def _report(
    path: Path,
    layout: str,
    tensors: Mapping[str, StoredTensor],
    values: Mapping[str, int],
    adapters: Mapping[str, AdapterConfig],
    digest: str,
    cache: CacheReport | None,
) -> Inspection:
    components: Counter[str] = Counter()
    for name, count in values.items():
        components[component_of(name)] += count
    return Inspection(
        path=path,
        layout=layout,
        values={component: components[component] for component in sorted(components, key=_place)},
        total_values=components.total(),
        total_bytes=sum(tensor.num_values * tensor.dtype.itemsize for tensor in tensors.values()),
        num_tensors=len(tensors),
        dtypes=dict(Counter(DTYPE_NAMES[tensor.dtype] for tensor in tensors.values())),
        adapters={name: AdapterReport(adapter.rank, adapter.scale) for name, adapter in adapters.items()},
        base_digest=digest,
        cache=cache,
    )


def _before_quantisation(config: ModelConfig) -> ModelConfig:
    """The same model with exact weights, which have no zeros that fill groups."""
    return replace(
        config,
        decoder=replace(config.decoder, quantisation=None),
        vision=config.vision and replace(config.vision, linear_bits=None),
        speech=config.speech and replace(config.speech, linear_bits=None),
        adapters={name: replace(adapter, bits=None) for name, adapter in config.adapters.items()},
    )


def _num_weights(name: str, tensor: StoredTensor) -> int:
    """How many weights a pack's tensor stands for, fillings included; steps and scales of quantised ones: none."""
    match name.rpartition(".")[2]:
        case "codes":
            blocks, groups = tensor.shape[:2]
            return blocks * groups * BLOCK_OUTPUTS * GROUP_INPUTS
        case "steps" | "scales":
            return 0
    return tensor.num_values


def _place(component: str) -> tuple[int, str]:
    """Orders components as `COMPONENTS` does; those of modalities from outside come behind them."""
    return (COMPONENTS.index(component) if component in COMPONENTS else len(COMPONENTS), component)


def component_of(released_name: str) -> str:
    """Returns which of `COMPONENTS` a tensor belongs to, by its name in a file; NAME_lora or NAME_encoder of others."""
    adapter, added = adapter_of(released_name), added_of(released_name)
    if adapter is not None:
        return f"{adapter}_lora"
    if added is not None:
        return f"{added}_encoder"
    prefixes = (prefix for prefix in _PREFIXES if released_name.startswith(prefix))
    return _PREFIXES[next(prefixes, "")]
