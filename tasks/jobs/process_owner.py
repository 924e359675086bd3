"""Identifying the process that works on a job, and whether it still runs; safe against PID reuse."""

import platform
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from tasks.base.records.record import Record


class Owner(Record):
    """A process, identified uniquely over hosts, boots, containers and reused ids."""

    host: str
    boot: str
    """The host's boot id; empty where the system does not tell."""
    namespace: str
    """The PID namespace, one for each container; empty where the system has none."""
    pid: int
    start: str
    """When the process began, unaffected by later changes of the clock."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """Return the calling process."""
    pid = psutil.Process().pid
    boot, namespace = _boot_and_namespace()
    return Owner(host=platform.node(), boot=boot, namespace=namespace, pid=pid, start=_start(pid) or "")


def lives(owner: Owner) -> bool | None:
    """Tell whether a process lives, stopped ones included; None where that cannot be seen from here.

    It cannot for other hosts, other containers, and other users' processes where the system hides them.
    """
    own = this_process()
    if owner.host != own.host:
        return None
    if owner.boot != own.boot:
        return False
    if owner.namespace != own.namespace:
        return None
    try:
        return _start(owner.pid) == owner.start
    except psutil.AccessDenied:
        return None


def _start(pid: int) -> str | None:
    """Return when a process began; None when it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        if sys.platform != "linux":
            return repr(process.create_time())
        # psutil's time is off by every step of the clock since boot; the kernel's ticks are not.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (psutil.NoSuchProcess, OSError):
        return None


def _boot_and_namespace() -> tuple[str, str]:
    """Return this process's boot id and PID namespace, empty where the system does not tell."""
    boot = namespace = ""
    if sys.platform == "linux":
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        with suppress(OSError):
            namespace = str(Path("/proc/self/ns/pid").readlink())
    return boot, namespace
