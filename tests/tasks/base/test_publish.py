"""Publishing: all of a directory or nothing, at whatever instruction the writer dies."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base import placing
from tasks.base.errors import BadInput
from tasks.base.publish import MANIFEST, finish_placing, is_intact, is_published, link_read_only, publishing


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
if sys.argv[3] == "inside":
    os.chdir(sys.argv[2])
with publishing(Path(sys.argv[2]), "v2") as scratch:
    (scratch / "sub").mkdir()
    (scratch / "sub" / "a.txt").write_text("two")
"""


def kill_at_every_operation(out: Path, place: str) -> Iterator[bool]:
    """Let the writer kill itself at its n-th call into the system, every third n; yield whether it got through."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    for budget in range(0, 400, 3):
        command = [sys.executable, "-c", WRITER, str(budget), str(out), place]
        code = subprocess.run(command, env=env, check=False).returncode
        assert code in (0, -signal.SIGKILL)
        yield code == 0
        if code == 0:
            return


def test_killed_at_any_file_operation_the_old_or_the_new_is_there_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "v1", "one")
    ended = []
    for through in kill_at_every_operation(out, "outside"):
        assert is_published(out, "v1") or is_published(out, "v2")
        ended.append(through)
    assert ended[-1]
    assert len(ended) > 5
    assert is_published(out, "v2")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_has_to_stay_is_filled_and_never_shows_a_mixture(tmp_path: Path) -> None:
    """Without a manifest it does not count; the next writer finishes, whatever it was called for."""
    out = tmp_path / "out"
    write(out, "v1", "one")
    inode, unfinished, ended = out.stat().st_ino, 0, []
    for through in kill_at_every_operation(out, "inside"):
        whole = is_published(out, "v1") or is_published(out, "v2")
        unfinished += not whole
        assert whole or not (out / MANIFEST).exists()
        finish_placing(out)
        assert is_published(out, "v1") or is_published(out, "v2")
        ended.append(through)
    assert ended[-1]
    assert unfinished
    assert is_published(out, "v2")
    assert out.stat().st_ino == inode
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "sub"]


def test_a_link_is_followed_even_where_nothing_is_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "out")
    write(tmp_path / "link", "v1", "one")
    write(tmp_path / "link", "v2", "two")
    assert (tmp_path / "link").is_symlink()
    assert is_published(tmp_path / "elsewhere" / "out", "v2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write(tmp_path / name, "v1", "one")
        assert is_published(tmp_path / name, "v1")
    assert len(list(tmp_path.iterdir())) == 2


def test_one_directory_has_one_writer_by_whatever_name_and_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    names = [tmp_path / "linked" / "out", tmp_path / "real" / ".." / "real" / "out"]
    with publishing(tmp_path / "real" / "out", "v1"):
        for name in names:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name.parent.name / "cache"))
            code = "import sys; from pathlib import Path; from tasks.base.publish import publishing\n"
            code += "with publishing(Path(sys.argv[1]), 'v2'): pass"
            env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
            other = subprocess.Popen(
                [sys.executable, "-c", code, name], env=env, stderr=subprocess.PIPE, text=True
            )
            assert other.stderr
            assert "waiting for the process that writes" in other.stderr.readline()
            other.kill()
            other.communicate()


def test_an_output_that_the_disk_does_not_confirm_is_there_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is visible is what the exit code says."""
    sync = placing.sync

    def fail(*paths: Path) -> None:
        if paths == (tmp_path,):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(*paths)

    monkeypatch.setattr(placing, "sync", fail)
    write(tmp_path / "out", "v1", "one")
    assert is_published(tmp_path / "out", "v1")
    assert "is in place, but the disk does not confirm it" in caplog.text


@pytest.mark.parametrize("name", ["../precious", "{out}/precious", "sub/../../precious", "..", "a\0b", ""])
def test_a_manifest_cannot_name_what_is_elsewhere(small_disk: Path, name: str) -> None:
    """In a directory that is filled, what an earlier manifest names is removed."""
    out, precious = small_disk, small_disk.parent / "precious"
    precious.write_text("the only copy")
    file = {"name": name.format(out=small_disk.parent), "size": 13, "sha256": "0" * 64}
    (out / MANIFEST).write_text(json.dumps({"made_from": "v0", "files": [file]}))
    with pytest.raises(BadInput, match="move it away"):
        write(out, "v1", "one")
    assert precious.read_text() == "the only copy"


@pytest.mark.parametrize("name", [MANIFEST, f"sub/{MANIFEST}"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    os.mkfifo(tmp_path / "out" / name)
    with pytest.raises(BadInput, match="move it away"):
        write(tmp_path / "out", "v1", "one")
    assert not is_published(tmp_path / "out", "v1")


def test_what_is_linked_for_good_cannot_be_written_by_either_name_and_can_be_replaced(tmp_path: Path) -> None:
    with publishing(tmp_path / "out", "v1") as scratch:
        (scratch / "weights").write_text("one")
    link_read_only(tmp_path / "out" / "weights", tmp_path / "kept")
    assert (tmp_path / "kept").samefile(tmp_path / "out" / "weights")
    assert (tmp_path / "kept").stat().st_mode & 0o222 == 0
    with publishing(tmp_path / "out", "v2") as scratch:
        (scratch / "weights").write_text("two")
    assert (tmp_path / "kept").read_text() == "one"
    assert (tmp_path / "out" / "weights").read_text() == "two"
