"""How much memory a device has."""

import os

import torch


def memory_bytes(device: torch.device) -> int:
    """Memory of a device: of the graphics card for CUDA, of the machine otherwise."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
