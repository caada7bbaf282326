"""How much memory a device has, and how much this process took."""

import os
import resource
import sys

import torch


def memory_bytes(device: torch.device) -> int:
    """Memory of a device: of the graphics card for CUDA, of the machine otherwise."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_resident_bytes() -> int:
    """The most memory that this process held at a time, files that it maps included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
