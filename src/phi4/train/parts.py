"""Which parameters a stage trains, and proof that the others did not change."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from phi4.checkpoint.keymap import adapter_of, modality_of
from phi4.checkpoint.shards import tensor_bytes
from phi4.errors import ConfigError
from phi4.train.stage import LANGUAGE

ADAPTER_SUFFIX = ".adapter"


def belongs_to(name: str, part: str) -> bool:
    """Whether a parameter is in a part.

    "language" is a whole decoder, "vision.adapter" a whole LoRA, anything else the beginning of a name.
    """
    if part == LANGUAGE:
        return modality_of(name) == LANGUAGE
    if part.endswith(ADAPTER_SUFFIX):
        return adapter_of(name) == part.removesuffix(ADAPTER_SUFFIX)
    return name == part or name.startswith(f"{part}.")


def select_trained(model: nn.Module, parts: Sequence[str]) -> dict[str, nn.Parameter]:
    """Freezes the model but for the parts of a stage, and returns what trains, by name.

    Raises:
        ConfigError: a part names nothing, or a part of the language model itself, which trains as a whole or not at
            all, and only where it has no modalities.
    """
    if LANGUAGE in parts:
        _refuse_modalities(model)
        model.requires_grad_(True)
        return dict(model.named_parameters())
    trained: dict[str, nn.Parameter] = {}
    for part in parts:
        found = {name: parameter for name, parameter in model.named_parameters() if belongs_to(name, part)}
        if not found:
            raise ConfigError(
                f"the stage trains {part}, which this model does not have; it has {', '.join(list_parts(model))}"
            )
        trained |= found
    _refuse_language(trained, "train")
    model.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained


def list_parts(model: nn.Module) -> list[str]:
    """The parts that a stage would name: what each modality consists of, and its adapter; or the language model."""
    parts = set()
    for name, _ in model.named_parameters():
        if adapter := adapter_of(name):
            parts.add(f"{adapter}{ADAPTER_SUFFIX}")
        elif modality_of(name) != "language":
            parts.add(".".join(name.split(".")[:2]))
    return sorted(parts) or [LANGUAGE]


def copy_parts(model: nn.Module, copies: Mapping[str, str]) -> set[str]:
    """Overwrites parameters with copies of others; returns the names of those that were overwritten.

    Raises:
        ConfigError: target and source do not have the same parameters, or the target is in the language model.
    """
    tensors = dict(model.named_parameters())
    overwritten = set()
    for target, source in copies.items():
        targets = [name for name in tensors if belongs_to(name, target)]
        sources = [name for name in tensors if belongs_to(name, source)]
        shapes = [
            [(_name_within(name, part), tensors[name].shape) for name in names]
            for part, names in ((target, targets), (source, sources))
        ]
        if not targets or shapes[0] != shapes[1]:
            raise ConfigError(f"{target} cannot start as a copy of {source}: they do not have the same parameters")
        _refuse_language(targets, "overwrite")
        with torch.no_grad():
            for target_name, source_name in zip(targets, sources, strict=True):
                tensors[target_name].copy_(tensors[source_name])
        overwritten |= set(targets)
    return overwritten


def _name_within(name: str, part: str) -> str:
    """What a parameter has in common with the one in the same place of another part."""
    if part.endswith(ADAPTER_SUFFIX):
        place, leaf = name.rsplit(f".{part.removesuffix(ADAPTER_SUFFIX)}.", 1)
        return f"{place}.{leaf}"
    return name.removeprefix(part)


def _refuse_modalities(model: nn.Module) -> None:
    parts = list_parts(model)
    if parts != [LANGUAGE]:
        raise ConfigError(
            f"the stage trains the language model, and this one has {', '.join(parts)}, which belong to its present "
            "weights; train the bare one: `phi4 convert MODEL SPLIT --to packs` puts it into SPLIT/base"
        )


def _refuse_language(names: Iterable[str], verb: str) -> None:
    base = [name for name in names if modality_of(name) == "language"]
    if base:
        raise ConfigError(f"the language model is frozen, but the stage would {verb} {base[0]} ({len(base)} tensors)")


def digest_frozen(model: nn.Module, changing: Iterable[str]) -> str:
    """SHA-256 over every parameter and buffer of the model that is not named, hexadecimal."""
    digest = hashlib.sha256()
    excluded = set(changing)
    for name, tensor in sorted(model.state_dict().items()):
        if name not in excluded:
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
