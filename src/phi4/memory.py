"""How much memory a device has, and how much this process took."""

import os
import re
import resource
import sys
from pathlib import Path

import torch

# What a container may use: control groups 2 and 1.
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
STATUS = Path("/proc/self/status")


def memory_bytes(device: torch.device) -> int:
    """Memory of a device: of the graphics card for CUDA, else of the machine, or what a container may use of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [file.read_text().strip() for file in LIMIT_FILES if file.is_file()]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])  # "max" is no limit


def peak_resident_bytes() -> int:
    """The most memory that this process held at a time, files that it maps included."""
    # On Linux, getrusage also counts the memory of whoever started this program.
    if STATUS.is_file() and (found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
