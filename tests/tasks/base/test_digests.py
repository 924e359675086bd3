"""Digests are those of hashlib and BLAKE3's own package; the cache that remembers them is a convenience, whatever becomes of it."""

import hashlib
import logging
import os
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from tasks.base import digests
from tasks.base.digests import (
    CLOCK_TICK_NS,
    DIGESTED_AT_ONCE,
    file_digests,
    linking,
    remember,
    sha256_digests,
    sha256_of,
)
from tasks.base.directories import cache_dir
from tasks.base.publish import link_or_copy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1000))
    long_ago = time.time_ns() - 100 * CLOCK_TICK_NS
    os.utime(path, ns=(long_ago, long_ago))
    time.sleep(CLOCK_TICK_NS / 1e9)
    return path


def expected(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_is_read_once_and_again_when_it_changed(file: Path) -> None:
    assert sha256_of(file) == sha256_of(file) == expected(file)
    before = file.stat()
    file.write_bytes(os.urandom(1000))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # put back: the ctime tells
    assert sha256_of(file) == expected(file)


@pytest.mark.parametrize("size", [0, 1, DIGESTED_AT_ONCE, DIGESTED_AT_ONCE + 1, 3 * DIGESTED_AT_ONCE - 7])
def test_files_are_known_by_blake3_and_compared_by_what_a_record_has(file: Path, size: int) -> None:
    file.write_bytes(os.urandom(size))
    [found] = file_digests(file.parent, [file])
    assert (found.blake3, found.sha256) == (blake3(file.read_bytes()).hexdigest(), None)
    assert found.digest == f"blake3:{found.blake3}"
    [before] = sha256_digests(file.parent, [file])
    assert before.digest == expected(file)
    assert before.model_dump() == {"name": "weights", "size": size, "sha256": expected(file)}
    assert file_digests(file.parent, [file], like=[before]) == (before,)
    assert file_digests(file.parent, [file], like=[found]) == (found,)


def test_a_link_does_not_make_a_file_be_read_again(file: Path, tmp_path: Path) -> None:
    """Nor does it hide a change."""
    remember([(file.stat(), "as it was written")])
    with linking([file]):
        link_or_copy(file, tmp_path / "link")
    assert file_digests(tmp_path, [tmp_path / "link"])[0].blake3 == "as it was written"
    file.write_bytes(os.urandom(1000))
    assert file_digests(tmp_path, [file])[0].blake3 == blake3(file.read_bytes()).hexdigest()


def test_a_link_does_not_make_the_hub_s_digest_be_computed_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are what a run that is fetched from the Hub's cache is staged by."""
    known = sha256_of(file)
    with linking([file]):
        link_or_copy(file, tmp_path / "link")
    monkeypatch.setattr(digests, "_computed", lambda path, algorithm: "computed again")
    assert sha256_of(file) == known
    file.write_bytes(os.urandom(1000))
    assert sha256_of(file) == "computed again"


def test_a_damaged_cache_is_done_without(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = cache_dir() / "digests"
    place.mkdir(parents=True)
    (place / "cache.db").write_bytes(b"no database" * 1000)
    for _ in range(3):
        assert sha256_digests(file.parent, [file])[0].sha256 == expected(file)
    assert len(caplog.messages) == 1
    assert "digests: cannot be used (file is not a database)" in caplog.text


@pytest.mark.timeout(30)  # diskcache alone would wait for a minute
def test_a_cache_that_another_process_holds_is_not_waited_for_long(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256_of(file)
    monkeypatch.setattr("tasks.base.digests.LOCKED_S", 0.1)
    holder = sqlite3.connect(cache_dir() / "digests" / "cache.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert sha256_of(file) == expected(file)
    holder.close()


def test_a_full_cache_is_done_without(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    sha256_of(file)
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk / 'ballast'}"], capture_output=True, check=False)
    for number in range(50):
        other = tmp_path / f"other{number}"
        other.write_bytes(os.urandom(2000))
        assert sha256_of(other) == expected(other)


@pytest.mark.parametrize("fault", ["a file", "read-only"])
def test_where_there_can_be_no_cache_another_place_is_taken(
    fault: str,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_disk: Path,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(file if fault == "a file" else small_disk))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with caplog.at_level(logging.WARNING):
        assert [sha256_of(file), sha256_of(file)] == [expected(file)] * 2
    assert caplog.text.count("cannot be written") == 1
    assert cache_dir() == tmp_path / f"loreline-{os.getuid()}"


def test_a_cache_with_odd_settings_is_done_without_and_named_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = cache_dir() / "digests"
    place.mkdir(parents=True)
    with closing(sqlite3.connect(place / "cache.db")) as db:
        db.executescript(
            "CREATE TABLE Settings (key TEXT, value); CREATE TABLE Cache (x);"
            "INSERT INTO Settings VALUES ('size_limit', 'x'), ('eviction_policy', 1), ('cull_limit', NULL);"
        )
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(sha256_of, [file] * 16)) == {expected(file)}
    assert len(caplog.messages) == 1
