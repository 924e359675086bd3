"""Which process does something, on which host, and whether it still lives; an id used again fools nobody."""

import platform
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from tasks.base.records import Record


class Owner(Record):
    """A process, told apart from every other that was or will be."""

    host: str
    boot: str
    """Which start of the host; empty where the system does not say."""
    namespace: str
    """What process ids count in: each container may have its own; empty where there is no such thing."""
    pid: int
    start: str
    """When the process began, in a form that a step of the clock does not change."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """Describe the process that asks."""
    pid = psutil.Process().pid
    boot, namespace = _counting()
    return Owner(host=platform.node(), boot=boot, namespace=namespace, pid=pid, start=_start(pid) or "")


def lives(owner: Owner) -> bool | None:
    """Tell whether a process lives, stopped ones included; None where this one cannot see it.

    Out of sight are other hosts, other containers, and other users' processes where the system hides them.
    """
    here = this_process()
    if owner.host != here.host:
        return None
    if owner.boot != here.boot:
        return False
    if owner.namespace != here.namespace:
        return None
    try:
        return _start(owner.pid) == owner.start
    except psutil.AccessDenied:
        return None


def _start(pid: int) -> str | None:
    """Return when a process began; None when it is gone, or has ended and its parent does not know yet."""
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


def _counting() -> tuple[str, str]:
    """Return the boot and the namespace in which this process's id counts, as far as the system says."""
    boot = namespace = ""
    if sys.platform == "linux":
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        with suppress(OSError):
            namespace = str(Path("/proc/self/ns/pid").readlink())
    return boot, namespace
