"""Checking GPUs: those of the driver, those of torch, and those that the parameters name."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.doctor.finding import Finding, gigabytes
from tasks.parameters.params import Params

SMI_S = 8.0
QUERY = ("--query-gpu=name,driver_version", "--format=csv,noheader")


class Device(NamedTuple):
    """A CUDA device as torch sees it; sizes in bytes."""

    name: str
    free: int
    total: int


def check_gpu(params: Params | None) -> list[Finding]:
    """Compare the driver's GPUs, torch's, and the devices that the parameters name."""
    named = {"merge.device": params.merge.device, "evaluate.device": params.evaluate.device} if params else {}
    driver = _driver()
    # Importing torch takes seconds, so only where there is a GPU or one is named.
    return judge_gpu(named, driver, *(_torch() if driver or _cuda_devices(named) else ([], "")))


def judge_gpu(
    named: Mapping[str, str], driver: Sequence[str], devices: Sequence[Device], build: str
) -> list[Finding]:
    """Report devices, there or missing. `named`: parameter → device; `build`: torch's CUDA, or empty."""
    found = [
        Finding("GPU", f"cuda:{i}", f"{one.name}, {gigabytes(one.free)} of {gigabytes(one.total)} free")
        for i, one in enumerate(devices)
    ]
    if driver and not devices:
        built = f"CUDA {build}" if build else "the CPU"
        text = f"the driver sees {driver[0]}, torch does not: it is built for {built}"
        remedy = (
            "update the NVIDIA driver, or install a torch built for an older CUDA (nvidia-smi shows which)"
            if build
            else "install the CUDA build of the pinned torch: https://pytorch.org/get-started/locally"
        )
        found.append(Finding("GPU", "torch", text, "warning", remedy))
    there = {"cuda", *(f"cuda:{i}" for i in range(len(devices)))} if devices else set()
    for key, device in _cuda_devices(named).items():
        if device not in there:
            text = f"{device} is not there"
            found.append(
                Finding("GPU", key, text, "problem", f"set {key} to auto or cpu, or mend the driver")
            )
    return found or [Finding("GPU", "device", "CPU: there is no NVIDIA GPU")]


def _cuda_devices(named: Mapping[str, str]) -> dict[str, str]:
    return {key: device for key, device in named.items() if device.startswith("cuda")}


def _driver() -> list[str]:
    """Name the GPUs that nvidia-smi lists, each with its driver; none without it."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", *QUERY], capture_output=True, text=True, check=False, timeout=SMI_S
        )
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _torch() -> tuple[list[Device], str]:
    import torch

    if not torch.cuda.is_available():
        return [], torch.version.cuda or ""
    count = range(torch.cuda.device_count())
    devices = [Device(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)) for i in count]
    return devices, torch.version.cuda or ""
