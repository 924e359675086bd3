"""A device that is not there is refused; auto takes what is there and worth it."""

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.engine import devices
from tasks.engine.devices import choose_devices, compute_threads, cores, threads_for


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices.Path, "exists", lambda path: True)


@pytest.mark.usefixtures("with_gpus")
@pytest.mark.parametrize(
    ("wanted", "decomposes", "chosen"),
    [
        ("cpu", True, ["cpu"]),
        ("auto", True, ["cuda:0", "cuda:1"]),
        ("auto", False, ["cpu"]),
        ("cuda", False, ["cuda:0", "cuda:1"]),
        ("cuda:1", False, ["cuda:1"]),
    ],
)
def test_devices_that_are_there(wanted: str, decomposes: bool, chosen: list[str]) -> None:
    assert choose_devices(wanted, decomposes) == chosen


@pytest.mark.usefixtures("with_gpus")
def test_a_gpu_too_many_is_refused() -> None:
    with pytest.raises(BadInput, match="--device cuda:2: there is cuda:0, cuda:1; take cpu or auto"):
        choose_devices("cuda:2", decomposes=False)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0"])
def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInput, match=f"--device {wanted}: there is no CUDA device; take cpu or auto"):
        choose_devices(wanted, decomposes=True)
    assert choose_devices("auto", decomposes=True) == ["cpu"]


@pytest.mark.parametrize(("held", "threads"), [(0, 8), (10, 8), (300, 3), (999, 1), (1000, 1)])
def test_threads_are_as_many_as_memory_lasts_for(
    monkeypatch: pytest.MonkeyPatch, held: int, threads: int
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    assert compute_threads(held) == threads


@pytest.mark.parametrize(("held", "free", "threads"), [(1, 100, 8), (30, 100, 6), (80, 100, 4), (0, 100, 8)])
def test_threads_share_gpus_as_memory_lasts(
    monkeypatch: pytest.MonkeyPatch, held: int, free: int, threads: int
) -> None:
    """Two of each at least: what does not fit then is computed on the CPU."""
    monkeypatch.setattr(devices, "cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    assert threads_for(["cuda:0", "cuda:1"], held) == threads
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert threads_for(["cuda:0"], 1) == 2


def test_a_matrix_that_fits_no_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**9}))
    with pytest.raises(BadInput, match=r"memory: this merge needs about 2.0 GB .* 1.0 GB are free"):
        compute_threads(2 * 10**9)


def test_there_is_a_core() -> None:
    assert cores() >= 1
