"""A disk that is full, read-only or limited: one sentence, nothing half-done, the old output intact."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.base.errors import BadInput, LorelineError
from tasks.base.publish import is_intact
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import visible
from tests.support.tiny import write_checkpoint

AVERAGE = MergeParams(method="average")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_checkpoint(tmp_path / "training", step) for step in (100, 200, 300)]


def test_a_full_disk_is_noticed_before_work(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100))
    computed: list[str] = []
    with pytest.raises(BadInput, match="has 0.0 GB free, this merge writes 0.0 GB; make room"):
        merge_directories(AVERAGE, three, tmp_path / "out", lambda headway: computed.append(headway.last))
    assert not computed
    assert not list(tmp_path.glob("*out*"))


def big(root: Path, step: int, kilobytes: int) -> Path:
    tensors = {f"w{i}": torch.full((kilobytes, 32), float(step)) for i in range(8)}
    return write_checkpoint(root, step, tensors)


def test_a_disk_that_fills_up_in_the_middle_leaves_the_old_output(small_disk: Path, tmp_path: Path) -> None:
    """600 KB fit, and fit no second time beside the first, whatever statvfs promised."""
    small = [big(tmp_path / "small", step, 10) for step in (1, 2)]
    large = [big(tmp_path / "large", step, 600) for step in (1, 2)]
    merge_directories(AVERAGE, small, small_disk / "out")
    (small_disk / "ballast").write_bytes(bytes(500_000))
    before = visible(small_disk / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
        with pytest.raises(LorelineError, match="the disk is full; make room for 0.0 GB and run again"):
            merge_directories(AVERAGE, large, small_disk / "out")
    assert visible(small_disk / "out") == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "out"]
    (small_disk / "ballast").unlink()
    merge_directories(AVERAGE, large, small_disk / "out")
    assert is_intact(small_disk / "out")


def test_what_a_killed_merge_left_counts_as_free(small_disk: Path, tmp_path: Path) -> None:
    """The space that a resumed merge needs is taken already."""
    large = [big(tmp_path / "large", step, 600) for step in (1, 2)]
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tasks.merge_checkpoints import merge_directories; from tasks.parameters.merge import MergeParams\n"
        "def stop(*news): os.kill(os.getpid(), signal.SIGKILL)\n"
        "out, *inputs = map(Path, sys.argv[1:])\n"
        "merge_directories(MergeParams(method='average'), inputs, out, stop)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, small_disk / "out", *large], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert shutil.disk_usage(small_disk).free < 600_000
    merge_directories(AVERAGE, large, small_disk / "out")
    assert [path.name for path in small_disk.iterdir()] == ["out"]


def test_a_limit_on_file_sizes_is_one_sentence(three: list[Path], tmp_path: Path) -> None:
    code = (
        "import resource, sys; from flows.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "merge", *three, "--out", tmp_path / "out", "--set", "merge.method=average"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*out*"))


def test_a_read_only_disk_is_named(small_disk: Path, three: list[Path]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(LorelineError, match="disk.*: Read-only file system; write somewhere else"):
        merge_directories(AVERAGE, three, small_disk / "out")
