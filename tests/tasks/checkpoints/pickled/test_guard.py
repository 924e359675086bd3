"""The process that converts can write into one directory and nothing else: a second wall behind the loaders."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT

START = """
import sys, os, socket, subprocess, shutil
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tasks.checkpoints.pickled.guard import confine
target, other = Path(sys.argv[2]), Path(sys.argv[3])
confine(target, 0)
"""


def attempt(code: str, tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    target, other = tmp_path / "target", tmp_path / "targets"
    for place in (target, other):
        place.mkdir()
        (place / "there").write_text("x")
    return subprocess.run(
        [sys.executable, "-I", "-c", START + code, str(ROOT), str(target), str(other)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 80)",
        "subprocess.run(['true'])",
        "os.system('true')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "(other / 'new').write_text('x')",
        "os.open(other / 'new', os.O_CREAT | os.O_WRONLY)",
        "(other / 'there').unlink()",
        "(target / 'there').symlink_to(other / 'there')",
        "os.mkdir(other / 'new')",
        "shutil.rmtree(other)",
        "(target / '..' / 'targets' / 'new').write_text('x')",
    ],
)
def test_what_it_must_not_do_raises(tmp_path: Path, code: str) -> None:
    done = attempt(code, tmp_path)
    assert "PermissionError" in done.stderr or "FileExistsError" in done.stderr
    assert done.returncode == 1
    assert [path.name for path in (tmp_path / "targets").iterdir()] == ["there"]


def test_it_can_read_and_write_in_its_directory(tmp_path: Path) -> None:
    done = attempt(
        "(target / 'new').write_text((other / 'there').read_text()); os.mkdir(target / 'd')", tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "target" / "new").read_text() == "x"


def test_memory_is_limited(tmp_path: Path) -> None:
    assert "MemoryError" in attempt("bytearray(64 << 30)", tmp_path).stderr
