"""Which parameters a stage trains, and proof that the others did not change."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from phi4.checkpoint.keymap import adapter_of
from phi4.checkpoint.shards import tensor_bytes
from phi4.errors import ConfigError

ADAPTER_SUFFIX = ".adapter"


def belongs_to(name: str, part: str) -> bool:
    """Whether a parameter is in a part: "vision.adapter" is a whole LoRA, anything else the beginning of a name."""
    if part.endswith(ADAPTER_SUFFIX):
        return adapter_of(name) == part.removesuffix(ADAPTER_SUFFIX)
    return name == part or name.startswith(f"{part}.")


def select_trained(model: nn.Module, parts: Sequence[str]) -> dict[str, nn.Parameter]:
    """Freezes the model but for the parts of a stage, and returns what trains, by name.

    Raises:
        ConfigError: a part names nothing, or a part of the language model itself, which is always frozen.
    """
    trained: dict[str, nn.Parameter] = {}
    for part in parts:
        found = {name: parameter for name, parameter in model.named_parameters() if belongs_to(name, part)}
        if not found:
            known = sorted({name.rsplit(".", 1)[0] for name, _ in model.named_children()})
            raise ConfigError(f"the stage trains {part}, which this model does not have; it has {', '.join(known)}")
        trained |= found
    base = [name for name in trained if name.startswith(("language.", "model.", "lm_head.")) and not adapter_of(name)]
    if base:
        raise ConfigError(f"the language model is frozen, but the stage would train {base[0]} ({len(base)} tensors)")
    model.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained


def copy_parts(model: nn.Module, copies: Mapping[str, str]) -> set[str]:
    """Overwrites parameters with copies of others; returns the names of those that were overwritten.

    Raises:
        ConfigError: target and source do not have the same parameters.
    """
    tensors = dict(model.named_parameters())
    overwritten = set()
    for target, source in copies.items():
        targets = [name for name in tensors if belongs_to(name, target)]
        sources = [name for name in tensors if belongs_to(name, source)]
        if not targets or [n.removeprefix(target) for n in targets] != [n.removeprefix(source) for n in sources]:
            raise ConfigError(f"{target} cannot start as a copy of {source}: they do not have the same parameters")
        with torch.no_grad():
            for target_name, source_name in zip(targets, sources, strict=True):
                tensors[target_name].copy_(tensors[source_name])
        overwritten |= set(targets)
    return overwritten


def digest_frozen(model: nn.Module, changing: Iterable[str]) -> str:
    """SHA-256 over every parameter and buffer of the model that is not named, hexadecimal."""
    digest = hashlib.sha256()
    excluded = set(changing)
    for name, tensor in sorted(model.state_dict().items()):
        if name not in excluded:
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
