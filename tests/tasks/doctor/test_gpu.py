import pytest

from tasks.doctor.gpu import Device, judge_gpu

H200 = Device("NVIDIA H200", 100_000_000_000, 141_000_000_000)
AUTO = {"merge.device": "auto", "evaluate.device": "auto"}
SMI = ["NVIDIA H200, 570.1"]


def test_no_gpu_is_well_when_nothing_asks_for_one() -> None:
    (finding,) = judge_gpu(AUTO, [], [], "")
    assert (finding.level, finding.found) == ("ok", "CPU: there is no NVIDIA GPU")


def test_a_gpu_is_shown_with_its_memory() -> None:
    (finding,) = judge_gpu({"merge.device": "cuda:0", "evaluate.device": "cuda"}, SMI, [H200], "13.0")
    assert (finding.level, finding.found) == ("ok", "NVIDIA H200, 100.0 GB of 141.0 GB free")


@pytest.mark.parametrize("devices", [[], [H200]])
def test_a_device_that_is_not_there_is_a_problem(devices: list[Device]) -> None:
    found = judge_gpu({"merge.device": "cuda:1", "evaluate.device": "cpu"}, [], devices, "13.0")
    assert [(each.subject, each.level) for each in found if each.level != "ok"] == [
        ("merge.device", "problem")
    ]


@pytest.mark.parametrize(("build", "what", "remedy"), [
    ("13.0", "built for CUDA 13.0", "update the NVIDIA driver"), ("", "built for the CPU", "install the CUDA build"),
])  # fmt: skip
def test_a_gpu_that_torch_cannot_use_is_named_with_the_reason(build: str, what: str, remedy: str) -> None:
    (finding,) = judge_gpu(AUTO, SMI, [], build)
    assert finding.level == "warning"
    assert what in finding.found
    assert finding.remedy.startswith(remedy)
