"""Writes a model with weights of 4 and 8 bits: its language model's, and those of its encoders and adapters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, repeat
from pathlib import Path
from types import MappingProxyType

import torch
from torch.nn import functional

from phi4.checkpoint.config_json import write_adapter_bits, write_encoder_bits, write_quantisation
from phi4.checkpoint.digest import base_digest, codes_digest
from phi4.checkpoint.directories import COMPANION_FILES, CONFIG_FILE, copy_companions, write_json
from phi4.checkpoint.feedback import round_with_feedback
from phi4.checkpoint.keymap import fixed_dtypes, is_multimodal, modality_of, parameter_shapes
from phi4.checkpoint.layouts import Checkpoint, check_layout, open_checkpoint, write_checkpoint
from phi4.checkpoint.moments import layer_moments
from phi4.checkpoint.rounding import round_weight
from phi4.checkpoint.shards import MAX_SHARD_BYTES, Progress, TensorSpec
from phi4.checkpoint.weights import load_model
from phi4.config import ADAPTED_LINEARS, ModelConfig, QuantisationConfig
from phi4.errors import CheckpointError
from phi4.files import new_directory
from phi4.kernels.quantised import PackedWeight
from phi4.kernels.quantised_projection import padded
from phi4.model.multimodal import Phi4Multimodal

# Of the linears of encoders and adapters that are quantised.
MODALITY_BITS = 8

# Of a layer and how many there are: whether a linear has 8 bits there.
Layers = Callable[[int, int], bool]


def _all(layer: int, num_layers: int) -> bool:
    return True


def _outermost(layer: int, num_layers: int) -> bool:
    """The first two and the last two."""
    return layer < 2 or layer >= num_layers - 2


def _ends(layer: int, num_layers: int) -> bool:
    """An eighth at each end."""
    return layer < num_layers // 8 or layer >= 7 * num_layers // 8


def _ends_and_every_third(layer: int, num_layers: int) -> bool:
    """An eighth at each end and every third between: where llama.cpp's Q4_K_M gives down_proj more bits."""
    return _ends(layer, num_layers) or (layer - num_layers // 8) % 3 == 2


@dataclass(frozen=True)
class Scheme:
    """How many bits the weights of a decoder get.

    Attributes:
        eight: the linears that have 8 bits, of `ADAPTED_LINEARS`, and in which layers; elsewhere they have 4.
        table_bits: of the token embedding and the head.
    """

    eight: Mapping[str, Layers]
    table_bits: int

    def linear_bits(self, num_layers: int) -> dict[str, tuple[int, ...]]:
        """Bits of each linear, in every layer in turn."""
        layers = range(num_layers)
        return {
            name: tuple(8 if name in self.eight and self.eight[name](layer, num_layers) else 4 for layer in layers)
            for name in ADAPTED_LINEARS
        }


_MIXED = {
    "self_attn.qkv_proj": _all,
    "self_attn.o_proj": _ends,
    "mlp.down_proj": _ends_and_every_third,
    "mlp.gate_up_proj": _outermost,
}
SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "4bit": Scheme({}, 4),
        "mixed": Scheme(_MIXED, 8),
        "8bit": Scheme(dict.fromkeys(ADAPTED_LINEARS, _all), 8),
    }
)


def quantise(
    source: Path,
    destination: Path,
    scheme: Scheme,
    progress: Progress | None = None,
    windows: Sequence[Sequence[int]] = (),
    encoders: bool = False,
    adapters: bool = False,
) -> None:
    """Writes a quantised model into a new directory that appears complete or not at all.

    The result has the released layout and records the digest of its source, so that packs trained on that fit. Packed
    weights are in memory until all are there, since a file has the tensors of one type beside each other.

    Args:
        source: a model directory of either layout.
        destination: a new or empty directory.
        scheme: which weights get how many bits.
        progress: told the bytes read so far and in all, of weights that are quantised.
        windows: token ids of pieces of a text. With some, linears of 4 bits are rounded for the inputs that the text
            gives them, which takes several times as long.
        encoders: whether the linears of both encoders' layers get 8 bits; those that have them keep them.
        adapters: whether the adapters get 8 bits, likewise.

    Raises:
        ConfigError: a configuration file is missing, broken or not supported, or sizes do not fit groups of weights.
        CheckpointError: the source is broken or quantised already, has no encoders and adapters, or lacks one modality
            or adapter.
    """
    checkpoint = open_checkpoint(source)
    if checkpoint.config.decoder.quantisation is not None:
        raise CheckpointError(f"{source} is quantised already; name the model that it was made from")
    if (encoders or adapters) and not is_multimodal(checkpoint.config):
        raise CheckpointError(
            f"{source} is a language model without encoders and adapters; leave them out, or first put packs into it "
            "with `phi4 convert MODEL DIRECTORY --pack PACK`"
        )
    config = _quantised(checkpoint, scheme, encoders, adapters)
    # Rounding takes minutes; what cannot be written is refused before it.
    check_layout(config, "released")
    fixed, shapes = fixed_dtypes(config), parameter_shapes(config)
    with new_directory(destination) as partial:
        names = sorted({name.rpartition(".")[0] for name in fixed if name not in checkpoint.tensors}, key=_in_order)
        packed = _round_all(checkpoint, config, names, _moments(checkpoint, windows), progress)
        specs = {
            name: TensorSpec(fixed[name] if name in fixed else checkpoint.tensors[name].dtype, shape)
            for name, shape in shapes.items()
        }
        copy_companions(checkpoint.directory, partial, COMPANION_FILES)
        write_checkpoint(
            partial,
            config,
            specs,
            lambda name: packed[name] if name in packed else checkpoint.tensors[name].read(),
            "released",
            checkpoint.generation.eos_token_ids,
            MAX_SHARD_BYTES,
        )
        _note_codes(partial)


def _note_codes(directory: Path) -> None:
    """Writes the digest of the quantised weights that a directory holds into its configuration."""
    written = open_checkpoint(directory)
    quantisation = written.config.decoder.quantisation
    assert quantisation is not None
    noted = replace(quantisation, codes_digest=codes_digest(written.tensors))
    write_json(directory / CONFIG_FILE, {**written.config.raw, **write_quantisation(noted)})


def _quantised(checkpoint: Checkpoint, scheme: Scheme, encoders: bool, adapters: bool) -> ModelConfig:
    """The configuration of the result."""
    linear_bits = scheme.linear_bits(checkpoint.config.decoder.num_hidden_layers)
    quantisation = QuantisationConfig(linear_bits, scheme.table_bits, base_digest(checkpoint.tensors))
    config, raw = checkpoint.config, dict(checkpoint.config.raw)
    if encoders:
        raw |= write_encoder_bits(raw, MODALITY_BITS)
    if adapters:
        raw |= write_adapter_bits(raw, MODALITY_BITS)
    bits, lora_bits = (MODALITY_BITS if chosen else None for chosen in (encoders, adapters))
    return replace(
        config,
        decoder=replace(config.decoder, quantisation=quantisation),
        vision=config.vision and replace(config.vision, linear_bits=bits or config.vision.linear_bits),
        speech=config.speech and replace(config.speech, linear_bits=bits or config.speech.linear_bits),
        adapters={name: replace(adapter, bits=lora_bits or adapter.bits) for name, adapter in config.adapters.items()},
        raw={**raw, **write_quantisation(quantisation)},
    )


def _moments(checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> Iterator[dict[str, torch.Tensor]]:
    """Moments of the linears of each layer in turn; none without a text."""
    if not windows:
        return repeat({})
    model = load_model(checkpoint.directory).model
    return layer_moments(model.language if isinstance(model, Phi4Multimodal) else model, windows)


def _round_all(
    checkpoint: Checkpoint,
    config: ModelConfig,
    names: list[str],
    moments: Iterator[dict[str, torch.Tensor]],
    progress: Progress | None,
) -> dict[str, torch.Tensor]:
    """Rounds every weight of these names, layer by layer; returns the tensors of all, by our names."""
    report = progress or _ignore
    total = sum(_num_bytes(checkpoint, name) for name in names)
    packed: dict[str, torch.Tensor] = {}
    done = 0
    for layer, own in groupby(names, _layer):
        inputs = {} if layer is None else next(moments)
        for name in own:
            weight = _round(checkpoint, name, _bits(config, name), inputs.get(_linear(name)))
            packed |= {f"{name}.codes": weight.codes, f"{name}.scales": weight.scales}
            if weight.steps is not None:
                packed[f"{name}.steps"] = weight.steps
            done += _num_bytes(checkpoint, name)
            report(done, total)
    return packed


def _round(checkpoint: Checkpoint, name: str, bits: int, moments: torch.Tensor | None) -> PackedWeight:
    stored = checkpoint.tensors[name].read()
    if not stored.isfinite().all():
        raise CheckpointError(
            f"{name} of {checkpoint.directory} has values that are no numbers; it cannot be quantised"
        )
    if modality_of(name) != "language":
        # Pointwise convolutions are matrices; inputs fill whole groups, and so does the rank of an adapter.
        stored = stored.flatten(1)
        outputs, inputs = stored.shape
        more_outputs = padded(outputs) - outputs if ".lora_A." in name else 0
        stored = functional.pad(stored, (0, padded(inputs) - inputs, 0, more_outputs))
    # 8 bits leave no error worth passing on.
    if moments is None or bits == 8:
        return round_weight(stored, bits)
    if not moments.isfinite().all():
        raise CheckpointError(
            f"the text gives {name} of {checkpoint.directory} inputs that are no numbers; it cannot be rounded for that"
        )
    return round_with_feedback(stored, moments)


def _layer(name: str) -> int | None:
    """Number of the layer that a weight belongs to by its name in our model; None for the embedding and the head."""
    _, found, rest = name.partition("model.layers.")
    return int(rest.partition(".")[0]) if found else None


def _in_order(name: str) -> tuple[int, str]:
    layer = _layer(name)
    return -1 if layer is None else layer, name


def _linear(name: str) -> str:
    """Such as "mlp.down_proj", of a weight's name in our model."""
    return ".".join(name.split(".")[-3:-1])


def _ignore(done: int, total: int) -> None:
    """Tells nobody."""


def _num_bytes(checkpoint: Checkpoint, name: str) -> int:
    return checkpoint.tensors[name].num_values * checkpoint.tensors[name].dtype.itemsize


def _bits(config: ModelConfig, name: str) -> int:
    """Bits of a weight by its name in our model."""
    quantisation = config.decoder.quantisation
    assert quantisation is not None
    if modality_of(name) != "language":
        return MODALITY_BITS
    layer = _layer(name)
    return quantisation.table_bits if layer is None else quantisation.linear_bits[_linear(name)][layer]
