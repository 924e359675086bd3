"""Publishing: all of a directory or nothing, at whatever instruction the writer dies."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.base import placing
from tasks.base.manifest import MANIFEST, is_intact, is_published
from tasks.base.publish import publishing


def write(directory: Path, made_from: str, text: str) -> None:
    with publishing(directory, made_from) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "a.txt").write_text(text)


def test_what_was_published_is_recognised_until_a_byte_changes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "v1", "one")
    assert is_published(out, "v1")
    assert not is_published(out, "v2")
    (out / "sub" / "a.txt").write_text("two")  # the same size
    assert not is_published(out, "v1")
    assert not is_intact(out)


@pytest.mark.parametrize("change", ["missing", "extra", "manifest"])
def test_a_file_too_few_or_too_many_is_noticed(tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    write(out, "v1", "one")
    if change == "extra":
        (out / "b.txt").write_text("x")
    else:
        (out / (MANIFEST if change == "manifest" else "sub/a.txt")).unlink()
    assert not is_published(out, "v1")


def test_the_old_output_stays_when_the_new_one_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "v1", "one")

    def fail() -> None:
        with publishing(out, "v2") as scratch:
            (scratch / "half.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert is_published(out, "v1")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replacing_keeps_nothing_of_the_old(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "v1", "one")
    with publishing(out, "v2") as scratch:
        (scratch / "b.txt").write_text("b")
    assert sorted(path.name for path in out.iterdir()) == ["b.txt", MANIFEST]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_renames_do_where_the_system_cannot_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing.sys, "platform", "darwin")
    write(tmp_path / "out", "v1", "one")
    write(tmp_path / "out", "v2", "two")
    assert is_published(tmp_path / "out", "v2")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_content_gives_the_same_manifest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, "v1", "one")
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


WRITER = """
import os, signal, sys
from pathlib import Path
from tasks.base.publish import publishing

budget = int(sys.argv[1])
CALLS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "ctypes.dlopen")

def count(event, args):
    global budget
    budget -= event in CALLS
    if event in CALLS and budget < 0:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
with publishing(Path(sys.argv[2]), "v2") as scratch:
    (scratch / "sub").mkdir()
    (scratch / "sub" / "a.txt").write_text("two")
"""


def test_killed_at_any_file_operation_the_old_or_the_new_is_there_whole(tmp_path: Path) -> None:
    """The writer kills itself at its n-th call into the system, for every third n until it gets through."""
    out = tmp_path / "out"
    write(out, "v1", "one")
    kills = 0
    for budget in range(0, 400, 3):
        command = [sys.executable, "-c", WRITER, str(budget), str(out)]
        result = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
        assert is_published(out, "v1") or is_published(out, "v2")
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL
        kills += 1
    assert is_published(out, "v2")
    assert kills > 5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
