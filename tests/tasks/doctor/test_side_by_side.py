import os
import time
from functools import partial
from pathlib import Path

from tasks.doctor.finding import Finding
from tasks.doctor.side_by_side import Check, side_by_side
from tasks.parameters.params import read_params

WELL = Check("well", partial(list, [Finding("GPU", "device", "CPU")]))


def test_a_check_that_hangs_is_ended_and_the_others_are_heard(tmp_path: Path) -> None:
    started = time.monotonic()
    hangs = Check("hangs", partial(time.sleep, 100), silence="problem")
    found = side_by_side([[WELL, hangs, WELL], [WELL]], seconds=12)  # two processes start within it
    assert time.monotonic() - started < 20
    assert [(finding.subject, finding.level) for finding in found] == [
        ("device", "ok"), ("hangs", "problem"), ("well", "warning"), ("device", "ok"),
    ]  # fmt: skip
    assert found[1].found == "no answer within 12 s"


def test_a_check_that_crashes_or_raises_is_a_finding() -> None:
    crashes = Check("crashes", partial(os._exit, 3))
    raises = Check("raises", partial(int, "https://bob:hunter2@host/x?token=abc"))
    refuses = Check("refuses", partial(read_params, Path("/nowhere/params.yaml")))  # type: ignore[arg-type]
    found = side_by_side([[crashes], [raises, refuses]], seconds=30)
    assert found[0].found == "ended with code 3"
    assert (found[1].subject, found[1].level) == ("raises", "warning")
    assert "ValueError" in found[1].found
    assert "hunter2" not in found[1].found
    assert "abc" not in found[1].found
    assert (found[2].level, found[2].found.partition(";")[0]) == (
        "problem", "/nowhere/params.yaml: no such file",
    )  # fmt: skip
