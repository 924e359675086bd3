"""Who waits for a lock reads who holds it."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.base import held_lock

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pathlib import Path
from tasks.base.held_lock import held_lock
with held_lock(Path(sys.argv[1]), "the merge of run X", print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_holder_is_named_and_waited_for(tmp_path: Path) -> None:
    path, said = tmp_path / "locks" / "device", list[str]()
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    note = path.with_name("device.holder")
    holder = held_lock.Holder.read(note)
    holder.model_copy(update={"since": time.time() - 185}).write(note)

    def hear(news: str) -> None:
        said.append(news)
        child.stdin.close()  # type: ignore[union-attr]

    with held_lock.held_lock(path, "mine", hear):
        assert said == [f"waiting for the merge of run X (pid {child.pid}, since 3 min)"]
        assert held_lock.Holder.read(note).pid == os.getpid()
    assert child.wait() == 0
    child.stdout.close()
    assert not note.exists()


def test_a_free_lock_is_taken_in_silence_also_after_a_killed_holder(tmp_path: Path) -> None:
    path, said = tmp_path / "lock", list[str]()
    held_lock.Holder(pid=1, work="gone", since=0).write(path.with_name("lock.holder"))
    with held_lock.held_lock(path, "mine", said.append):
        pass
    assert not said


def test_a_holder_without_a_note_is_another_process(tmp_path: Path) -> None:
    path, said = tmp_path / "lock", list[str]()
    with held_lock.held_lock(path, "mine", said.append):
        path.with_name("lock.holder").unlink()
        lock = held_lock.FileLock(path)

        def release(news: str) -> None:
            said.append(news)
            raise InterruptedError

        try:
            with held_lock.held_lock(path, "another", release):
                raise AssertionError
        except InterruptedError:
            pass
        assert not lock.is_locked
    assert said == ["waiting for another process"]


def test_the_note_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("the only copy")
    (tmp_path / "lock.holder").symlink_to(tmp_path / "precious")
    with held_lock.held_lock(tmp_path / "lock", "mine", print):
        assert held_lock.Holder.read(tmp_path / "lock.holder").work == "mine"
    assert (tmp_path / "precious").read_text() == "the only copy"
    (tmp_path / "lock.holder").mkdir()  # who waits is told less
    with held_lock.held_lock(tmp_path / "lock", "mine", print):
        pass


def test_a_lock_that_cannot_be_made_is_not_waited_for() -> None:
    def wait(news: str) -> None:
        raise AssertionError(news)

    with pytest.raises(FileNotFoundError), held_lock.held_lock(Path("/proc/.out.lock"), "mine", wait):
        pass


def test_what_was_done_under_a_lock_stays_done_when_it_cannot_be_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def failing(file: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.EIO, "Input/output error")
        real(file, operation)

    with monkeypatch.context() as faults:
        faults.setattr(fcntl, "flock", failing)
        with held_lock.held_lock(tmp_path / "lock", "work", print):
            pass
    with held_lock.held_lock(tmp_path / "lock", "work", lambda said: pytest.fail(said)):
        assert not (tmp_path / "lock.holder").is_symlink()
