import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tasks.base.directories import state_dir
from tasks.doctor.disk import Disk, Need, check_disk, disk_of, judge_space, needs, told_space
from tasks.doctor.finding import gigabytes
from tasks.jobs.ledger import Ledger
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.params import Params
from tests.support.adapter_runs import write_adapter_run
from tests.support.pickled_states import without_weights, write_bin

NOBODY = 65534


@pytest.fixture
def params() -> Params:
    return Params(
        fetch=FetchParams(source="training"), evaluate=EvaluateParams(tasks=("t",), primary="t/nll")
    )


@pytest.mark.parametrize(("free", "level"), [(4.9e9, "problem"), (5e9, "warning"), (10e9, "ok")])
def test_free_space_is_weighed_against_what_a_file_system_will_get(free: int, level: str) -> None:
    wanted = [Need(Path("/a"), 4_000_000_000, "the merge"), Need(Path("/c"), 1_000_000_000, "DVC's copy")]
    (finding,) = judge_space(wanted, lambda place: Disk(Path("/"), int(free)))
    assert finding.level == level
    assert "the next merge needs 5.0 GB (4.0 GB the merge + 1.0 GB DVC's copy)" in finding.found
    assert bool(finding.remedy) == (level != "ok")


def test_each_file_system_gets_its_own_share() -> None:
    wanted = [Need(Path("/a"), 10, "the merge"), Need(Path("/c"), 20, "DVC's copy")]
    found = judge_space(wanted, lambda place: Disk(place, 15))
    assert [(finding.subject, finding.level) for finding in found] == [("/a", "warning"), ("/c", "problem")]


def test_the_plan_says_what_a_merge_of_any_run_would_write(
    tmp_path: Path, params: Params, make_checkpoint: Callable[..., Path]
) -> None:
    size = max(sum(file.stat().st_size for file in path.iterdir()) for path in map(make_checkpoint, (10, 20)))
    (line,) = told_space(params, tmp_path, tmp_path / "training")
    assert line.startswith(f"Disk {disk_of(tmp_path).place}: ")
    assert f"the next merge needs {gigabytes(2 * size)}" in line


def test_the_newest_run_s_sizes_count_and_links_are_free(
    tmp_path: Path, params: Params, make_checkpoint: Callable[..., Path]
) -> None:
    sizes = {
        path.name: sum(file.stat().st_size for file in path.iterdir())
        for path in map(make_checkpoint, (10, 20))
    }
    source = (tmp_path / "training").resolve()
    (merge,) = needs(params, tmp_path, source, sizes)
    assert (merge.place, merge.size) == (tmp_path / "artifacts", 2 * sizes["checkpoint-20"])
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    assert [need.what for need in needs(params, tmp_path, source, sizes)][1:] == ["DVC's copy"]
    told = [
        finding.found
        for finding in check_disk(params, tmp_path)
        if finding.subject == str(disk_of(tmp_path).place)
    ]
    assert f"{3 * sizes['checkpoint-20'] / 1e6:.1f} MB" in told[0]


def test_it_says_how_often_a_merged_model_lies_on_disk(tmp_path: Path, params: Params) -> None:
    (tmp_path / ".dvc").mkdir()
    told, needed = {}, {}
    for name, config in (
        ("as DVC does", ""),
        ("linked", "[cache]\n type = hardlink,copy\n"),
        ("apart", "[cache]\n dir = /proc\n type = hardlink,copy\n"),
    ):
        (tmp_path / ".dvc" / "config").write_text(config)
        (told[name],) = [own.found for own in check_disk(params, tmp_path) if own.subject == "copies"]
        found = needs(params, tmp_path, (tmp_path / "training").resolve(), {"checkpoint-1": 7})
        needed[name] = [need.what for need in found][1:]
    assert "copied twice by DVC" in told["as DVC does"]
    assert "dvc config cache.type hardlink,copy" in told["as DVC does"]
    assert "takes its space once" in told["linked"]
    assert "lies twice" in told["apart"]
    assert needed == {"as DVC does": ["DVC's copy"], "linked": [], "apart": ["DVC's copy"]}


def test_checkpoints_on_another_file_system_are_copied(tmp_path: Path, params: Params) -> None:
    elsewhere = Path("/proc")
    assert elsewhere.stat().st_dev != tmp_path.stat().st_dev
    params = params.model_copy(update={"fetch": FetchParams(source=str(elsewhere))})
    found = needs(params, tmp_path, elsewhere, {"checkpoint-1": 7, "checkpoint-2": 8})
    assert [(need.size, need.what) for need in found][1:] == [(15, "copies of 2 checkpoints")]


def test_checkpoints_that_are_converted_are_written_anew(tmp_path: Path, params: Params) -> None:
    source = tmp_path / "run"
    for step in (1, 2):
        write_bin(without_weights(source, step), {"w": torch.ones(100)})
    fetch = FetchParams(source=str(source), convert=True)
    found = needs(
        params.model_copy(update={"fetch": fetch}), tmp_path, source, {"checkpoint-1": 7, "checkpoint-2": 8}
    )
    assert [(need.size, need.what) for need in found][1:] == [
        (15, "at most, of 2 checkpoints that are converted")
    ]


def test_the_ranks_of_adapters_add_up_and_a_full_merge_is_as_large_as_their_base(
    tmp_path: Path, params: Params
) -> None:
    source = write_adapter_run(tmp_path)
    sizes = {f"checkpoint-{step}": step * 100 for step in (1, 2, 3)}
    (need,) = needs(params, tmp_path, source, sizes)
    assert need.size == 2 * (100 + 200 + 300)
    full = params.model_copy(update={"merge": MergeParams(method="average", full=True)})
    (need,) = needs(full, tmp_path, source, sizes)
    assert need.size == 2 * sum(path.stat().st_size for path in (tmp_path / "base").iterdir())


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may write anywhere, so be somebody who may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_state_directory_that_is_not_writable_is_a_problem(params: Params, tmp_path: Path) -> None:
    state_dir().mkdir()
    state_dir().chmod(0o555)
    with somebody_else():
        (finding,) = check_disk(params, tmp_path)
    assert finding.level == "problem"
    assert finding.found == f"{state_dir()} is not writable"
    assert "LORELINE_HOME" in finding.remedy


def test_workspaces_that_nobody_works_in_are_counted(tmp_path: Path, params: Params) -> None:
    claim = Ledger().claim("a" * 64, "training")
    for name in ("a" * 16, "b" * 16):
        (state_dir() / "runs" / name).mkdir(parents=True)
        (state_dir() / "runs" / name / "weights").write_bytes(bytes(3_000_000))
    finding = check_disk(params, tmp_path)[-1]
    assert claim
    assert (finding.subject, finding.level) == ("workspaces", "warning")
    assert finding.found.startswith(f"1 in {state_dir() / 'runs'} hold 3.0 MB")
    assert "b" * 16 in finding.found


def test_looking_makes_nothing(tmp_path: Path, params: Params) -> None:
    check_disk(params, tmp_path)
    assert not state_dir().exists()
    assert list(tmp_path.iterdir()) == []
