"""Writes linears of 8 bits as compressed-tensors stores them, for vLLM and peers.py: SOURCE and DESTINATION.

Weights are rounded to the nearest with a scale for each output; activations are rounded while the model runs, with a
scale for each token. The embedding, which is the head too, and the norms stay as they are.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

LINEARS = ("qkv_proj.weight", "o_proj.weight", "gate_up_proj.weight", "down_proj.weight")
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
QUANTISATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**INT8, "strategy": "token", "dynamic": True},
        }
    },
    "ignore": ["lm_head"],
}


def round_to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns whole numbers `[outputs, inputs]` and the scales of outputs, `[outputs, 1]`."""
    values = weight.float()
    scales = values.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (values / scales).round_().to(torch.int8), scales.to(weight.dtype)


def main() -> None:
    source, destination = map(Path, sys.argv[1:])
    destination.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for path in sorted(source.glob("*.safetensors")):  # a file at a time, so that the whole is never in memory
        tensors = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open has no iterator
                tensor = file.get_tensor(name)
                if name.endswith(LINEARS):
                    tensors[name], tensors[f"{name}_scale"] = round_to_int8(tensor)
                else:
                    tensors[name] = tensor
        save_file(tensors, destination / path.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, path.name)
    (destination / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for path in source.glob("*.json"):
        if not path.name.endswith(".index.json"):
            shutil.copy(path, destination)
    config = json.loads((source / "config.json").read_text())
    (destination / "config.json").write_text(json.dumps(config | {"quantization_config": QUANTISATION}))


if __name__ == "__main__":
    main()
