"""A clone is a copy: the same bytes, mode and times, and a change to one is none to the other."""

import errno
import os
from pathlib import Path
from typing import IO

import pytest

from tasks.base.cloning import FICLONE, clone, clone_or_copy


@pytest.mark.parametrize("can_clone", [True, False])
def test_it_has_the_bytes_mode_and_times_of_the_file_and_a_life_of_its_own(
    can_clone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file system below this test can do, the system call is made up."""
    fcntl = pytest.importorskip("fcntl")

    def ioctl(target: IO[bytes], request: int, source: int) -> int:
        assert request == FICLONE
        if not can_clone:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return target.write(os.pread(source, 100, 0))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"weights")
    source.chmod(0o440)
    os.utime(source, ns=(10**18, 10**18))
    clone_or_copy(source, target)
    state = target.stat()
    assert (target.read_bytes(), state.st_mode & 0o777, state.st_mtime_ns) == (b"weights", 0o440, 10**18)
    target.chmod(0o640)
    target.write_bytes(b"other")
    assert source.read_bytes() == b"weights"


def test_it_says_whether_the_file_system_here_can(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    cloned = clone(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (b"weights" if cloned else b"")
