"""Choosing the devices and the number of threads that compute a merge."""

import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from tasks.base.errors import BadInput

CPU = "cpu"
FEWEST_PER_GPU, THREADS_PER_GPU = 2, 4
"""One reads and writes while another computes; with more than four they would wait for the interpreter."""


def choose_devices(wanted: str, decomposes: bool) -> list[str]:
    """Return the devices that share the tensors: ["cpu"], or GPUs.

    auto takes every GPU for methods that decompose matrices. The others are limited by reading files, and
    numpy keeps up with that. Raises BadInput for a GPU that is not there.
    """
    # The driver's file tells whether there is a GPU without importing torch, which takes seconds.
    if wanted == CPU or (wanted == "auto" and not (decomposes and Path("/dev/nvidiactl").exists())):
        return [CPU]
    import torch

    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if wanted == "auto":
        return found or [CPU]
    if wanted == "cuda" and found:
        return found
    if wanted not in found:
        raise BadInput(
            f"--device {wanted}", f"there is {', '.join(found) or 'no CUDA device'}", "take cpu or auto"
        )
    return [wanted]


def compute_threads(bytes_held: int) -> int:
    """Return the number of threads: one for each core, fewer where memory is short of `bytes_held` for each.

    Raises BadInput when it is short for one.
    """
    fitting = psutil.virtual_memory().available // max(bytes_held, 1)
    if not fitting:
        raise BadInput(
            "memory",
            f"this merge needs about {bytes_held / 1e9:.1f} GB for its largest matrix, and "
            f"{psutil.virtual_memory().available / 1e9:.1f} GB are free",
            "free some, or choose a method that does not decompose matrices",
        )
    return int(min(cores(), fitting))


def threads_for(devices: Sequence[str], bytes_held: int) -> int:
    """Return the number of threads: as `compute_threads`, or several for each GPU, as cores and memory allow.

    With GPUs the CPU reads, writes and decomposes what is small, and while one thread waits others go on.
    """
    if list(devices) == [CPU]:
        return compute_threads(bytes_held)
    import torch

    fitting = [
        torch.cuda.mem_get_info(device)[0] // max(bytes_held, 1)
        for device in devices
        if device.startswith("cuda")
    ]
    return max(FEWEST_PER_GPU, min(THREADS_PER_GPU, cores() // len(devices), *fitting)) * len(devices)


def cores() -> int:
    """Return how many cores this process may use."""
    # not cpu_count: containers, batch systems and taskset allow fewer
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
