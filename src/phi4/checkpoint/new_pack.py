"""Packs that nothing trained yet: where the first stage of a modality begins."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from phi4.checkpoint.digest import named_digest
from phi4.checkpoint.fragments import extend_config
from phi4.checkpoint.initialise import random_tensor
from phi4.checkpoint.keymap import adapter_of, modality_of, parameter_shapes
from phi4.checkpoint.layouts import Checkpoint, language_dtype
from phi4.checkpoint.packs import write_pack
from phi4.checkpoint.shards import TensorSpec
from phi4.modality import Modality

NO_TENSORS: Mapping[str, torch.Tensor] = MappingProxyType({})

# Deviation of vectors that stand for themselves and are not multiplied with an input.
_LOOKED_UP = ("separator", "probe")
_LOOKED_UP_DEVIATION = 0.02

# Share of the neighbourhood's mean that an attention layer of the vision tower takes away at the start.
_SHARPENING = 0.5


def write_new_pack(
    path: Path,
    base: Checkpoint,
    modality: str,
    fragment: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    *,
    seed: int = 0,
    given: Mapping[str, torch.Tensor] = NO_TENSORS,
    modalities: Sequence[Modality] = (),
) -> None:
    """Writes a random pack whose adapter does nothing yet: B is zero, so that answers are those of the base.

    Args:
        path: the file to write.
        base: the opened language model that the modality is for.
        modality: "vision", "speech" or the name of one from outside.
        fragment: the modality's part of config.json, as a pack carries it.
        preprocessor: its part of preprocessor_config.json.
        seed: chooses the values.
        given: tensors that are known, by our name: the mean and deviation of mel channels, for instance.
        modalities: those from outside; their encoders start as their own constructors leave them.

    Raises:
        ConfigError: the fragment is incomplete or does not fit the base.
    """
    config = extend_config(base.config, {modality: fragment}, modalities)
    dtype = language_dtype(base.tensors)
    specs = {
        name: TensorSpec(dtype, shape)
        for name, shape in parameter_shapes(config).items()
        if modality_of(name) == modality
    }
    known = dict(given)
    if modality in config.added:
        added = config.added[modality]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = added.modality.build_encoder(added.config, config.decoder.hidden_size)
        known |= {f"{modality}.{name}": tensor for name, tensor in encoder.state_dict().items()}

    def tensor_of(name: str) -> torch.Tensor:
        return known[name].to(dtype) if name in known else initial_tensor(name, specs[name], seed)

    write_pack(
        path, config, modality, specs, tensor_of, named_digest(base.config, base.tensors), {"stages": []}, preprocessor
    )


def initial_tensor(name: str, spec: TensorSpec, seed: int) -> torch.Tensor:
    """Draws the value that training starts from; it depends on seed and name alone.

    Matrices keep the size of what they multiply (deviation 1 / sqrt(inputs)), A of a LoRA has the deviation of the
    paper's code (the same divided by sqrt(3)), B and the conformer's relative bias start at zero, positions of patches
    as waves, from which a small tower learns sooner than from noise (arXiv 2205.01580). In the tower keys start equal
    to queries, so that a patch looks at itself and its neighbours, and outputs take away what it sees there: trained
    towers look like that, and small data hardly teach it (arXiv 2305.09828).
    """
    if (adapter_of(name) and ".lora_B." in name) or "relative_attention_bias" in name:
        return torch.zeros(spec.shape, dtype=spec.dtype)
    if name.startswith("vision.") and name.endswith("self_attn.k_proj.weight"):
        return initial_tensor(name.replace("k_proj", "q_proj"), spec, seed)
    if name.startswith("vision.") and name.endswith("self_attn.out_proj.weight"):
        return initial_tensor(name.replace("out_proj", "v_proj"), spec, seed).T.contiguous() * -_SHARPENING
    if name.endswith("position_embedding.weight"):
        num_positions, width = spec.shape
        waves = plane_waves(math.isqrt(num_positions), 100.0 ** -torch.linspace(0.0, 1.0, -(-width // 4)))
        return waves[:, :width].to(spec.dtype)
    if name.endswith(_LOOKED_UP):
        return random_tensor(name, spec, seed, _LOOKED_UP_DEVIATION)
    inputs = math.prod(spec.shape[1:])
    return random_tensor(name, spec, seed, inputs**-0.5 / (math.sqrt(3.0) if adapter_of(name) else 1.0))


def plane_waves(side: int, frequencies: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of a square's rows, then of its columns: [side * side, 4 * frequencies]."""
    places = torch.arange(side * side)
    angles = torch.stack((places // side, places % side), dim=-1)[..., None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
