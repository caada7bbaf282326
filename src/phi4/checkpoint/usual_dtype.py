"""Which type a model computes in unless somebody says."""

import torch

from phi4.checkpoint.layouts import Checkpoint, language_dtype
from phi4.memory import memory_bytes

# The rest is for the key/value cache, activations and others.
SHARE_OF_MEMORY = 0.5


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The type of the stored token embedding; of the last norm if the embedding is quantised."""
    return language_dtype(checkpoint.tensors)


def usual_dtype(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """What is stored, but float32 for bf16 on a processor that cannot multiply bf16 and has memory enough.

    There, products of bf16 matrices take 60 times as long as those of float32, which hold every bf16 value exactly.

    Args:
        checkpoint: the opened model.
        device: where the weights go.
    """
    stored = stored_dtype(checkpoint)
    if stored != torch.bfloat16 or multiplies_bf16(device):
        return stored
    needed_bytes = torch.float32.itemsize * sum(
        tensor.num_values for tensor in checkpoint.tensors.values() if tensor.dtype.is_floating_point
    )
    return torch.float32 if needed_bytes <= SHARE_OF_MEMORY * memory_bytes(device) else stored


def multiplies_bf16(device: torch.device) -> bool:
    """Whether torch has a quick way to multiply bf16 matrices on a device: among x86 processors, those with AVX-512."""
    if device.type != "cpu":
        return True
    # The very question that torch asks itself before it takes oneDNN for a product.
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
