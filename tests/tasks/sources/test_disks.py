"""Network file systems are those that several machines can have mounted; everything else is one machine's."""

from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tasks.sources.disks import is_shared


class Mount(NamedTuple):
    mountpoint: str
    fstype: str


def test_the_disk_of_the_tests_is_one_machine_s(tmp_path: Path) -> None:
    assert not is_shared(tmp_path)
    assert not is_shared(tmp_path / "not there yet")


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("nfs4", True), ("lustre", True), ("fuse.sshfs", True), ("ext4", False), ("fuse.mergerfs", False)],
)
def test_the_innermost_mount_decides(
    kind: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of mounts is the one thing here that cannot be had for real."""
    (run := tmp_path / "data" / "runs" / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(run)
    outer = Mount(str(tmp_path), "ext4" if shared else "nfs")
    mounts = [Mount("/", "overlay"), outer, Mount(str(tmp_path / "data"), kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert is_shared(run) is shared
    assert is_shared(tmp_path / "link") is shared
    assert is_shared(tmp_path) is not shared
