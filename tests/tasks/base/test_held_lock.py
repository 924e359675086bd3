"""Who waits for a lock reads who holds it."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tasks.base import held_lock
from tasks.base.directories import shared_locks_dir
from tasks.base.errors import BadInput

ROOT = Path(__file__).parents[3]
FORK, NOBODY = multiprocessing.get_context("fork"), 65534
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs a process as another user")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_two_users_of_a_machine_wait_for_each_other(
    umask: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Each holds a lock that the other made, and says whose turn it is."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own directories are one user's
    request.addfinalizer(lambda: shutil.rmtree(place))
    place.chmod(0o755)
    monkeypatch.setenv("LORELINE_LOCKS", str(place / "locks"))
    path, said = shared_locks_dir() / "device", list[str]()
    assert shared_locks_dir() == path.parent
    for _ in range(2):  # the first makes the file
        ours, theirs = multiprocessing.Pipe()
        other = FORK.Process(target=hold_as_nobody, args=(path, umask, theirs))
        other.start()
        assert ours.recv() == "held"

        def hear(news: str, end: Connection = ours) -> None:
            said.append(news)
            end.send("let go")

        with held_lock.held_lock(path, "mine", hear, held_lock.SHARED):
            assert path.stat().st_mode & 0o777 == 0o666
        other.join()
        assert other.exitcode == 0
    assert [news.partition(", pid")[0] for news in said] == [
        "waiting for the merge of run X (user nobody"
    ] * 2


def hold_as_nobody(path: Path, umask: int, told: Connection) -> None:
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.umask(umask)
    with held_lock.held_lock(path, "the merge of run X", print, held_lock.SHARED):
        told.send("held")
        told.recv()


def test_a_directory_that_this_user_may_not_write_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, links and directories of others (P5)."""
    for name, made in (("file", Path.touch), ("link", lambda path: path.symlink_to(tmp_path))):
        made(tmp_path / name)
        monkeypatch.setenv("LORELINE_LOCKS", str(tmp_path / name))
        with pytest.raises(BadInput, match="LORELINE_LOCKS"):
            shared_locks_dir()
    monkeypatch.setenv("LORELINE_LOCKS", str(tmp_path / "file" / "below"))
    with pytest.raises(BadInput, match="below: Not a directory; name a directory for all users in LORELINE_LOCKS"):  # fmt: skip
        shared_locks_dir()


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
