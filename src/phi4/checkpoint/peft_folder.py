"""One LoRA as a PEFT folder: `adapter_config.json` beside `adapter_model.safetensors`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from phi4.checkpoint.directories import write_json
from phi4.checkpoint.json_values import number, size
from phi4.checkpoint.shards import TensorSpec, write_file
from phi4.checkpoint.tensor_files import StoredTensor, map_file, refuse_pickles
from phi4.config import AdapterConfig
from phi4.errors import ConfigError
from phi4.json_file import read_json

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"

# PEFT takes a string as a pattern for whole module names. Facts sheet 6.2.
TARGET_PATTERN = r"model\.layers\.\d+\.((self_attn\.(qkv|o)_proj)|(mlp\.(gate_up|down)_proj))"

# Variants of LoRA whose arithmetic is not y = W x + scale * B(A(x)); each must be absent or have this value.
_PLAIN_LORA = {
    "peft_type": "LORA",
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
}
_EMPTY_IN_PLAIN_LORA = ("rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform")


@dataclass(frozen=True)
class PeftFolder:
    """What a PEFT folder holds: the adapter's numbers, and its tensors by their names in the file."""

    config: AdapterConfig
    tensors: Mapping[str, StoredTensor]


def read_peft_folder(folder: Path) -> PeftFolder:
    """Reads a LoRA that PEFT, the release or `write_peft_folder` wrote; the tensors are mapped, not copied.

    Raises:
        ConfigError: `adapter_config.json` is missing, broken or asks for another kind of adapter.
        CheckpointError: the tensors are missing, truncated or pickled.
    """
    raw = read_json(folder / ADAPTER_CONFIG_FILE)
    for key, value in _PLAIN_LORA.items():
        if raw.get(key, value) != value:
            raise ConfigError(f"{folder / ADAPTER_CONFIG_FILE}: {key} is {raw[key]!r}; only {value!r} is supported")
    for key in _EMPTY_IN_PLAIN_LORA:
        if raw.get(key):
            raise ConfigError(f"{folder / ADAPTER_CONFIG_FILE}: {key} is {raw[key]!r}; it must be empty")
    try:
        adapter = AdapterConfig(
            rank=size(raw, "r"),
            alpha=number(raw, "lora_alpha"),
            dropout=number({"lora_dropout": 0.0, **raw}, "lora_dropout"),
        )
    except ConfigError as error:
        raise ConfigError(f"{folder / ADAPTER_CONFIG_FILE}: {error}") from error
    if not (folder / ADAPTER_FILE).exists():
        refuse_pickles(folder)
    return PeftFolder(adapter, map_file(folder / ADAPTER_FILE))


def write_peft_folder(
    folder: Path,
    adapter: AdapterConfig,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], torch.Tensor],
) -> None:
    """Writes a folder that PEFT loads onto transformers' native model.

    Args:
        folder: created if absent.
        adapter: rank, alpha and dropout.
        specs: dtype and shape of every tensor, by the name in the file (`keymap.adapter_table`).
        tensor_of: gives the values of a named tensor.
    """
    folder.mkdir(exist_ok=True)
    config = {
        **_PLAIN_LORA,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "modules_to_save": None,
        "r": adapter.rank,
        "target_modules": TARGET_PATTERN,
        "task_type": "CAUSAL_LM",
    }
    write_json(folder / ADAPTER_CONFIG_FILE, config)
    write_file(folder / ADAPTER_FILE, specs, tensor_of)
