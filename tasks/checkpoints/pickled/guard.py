"""What a conversion may do, whatever it reads: compute, and write into one directory."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

ROOM = 4 << 30
"""Bytes of address space beside the files: the tensors of one shard, read and being written."""
PROCESSES = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.")
NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.ch")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine(target: Path, size: int) -> None:
    """Limit this process for the rest of its life: no network, no processes, no files but in `target`.

    `size` is the bytes of the files that it reads; address space is limited to twice as much beside what it
    has already. A hook sees what Python does: it is the second wall behind the restricted loaders.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = used + 2 * size + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))
    place = os.fspath(target.resolve())

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith((*PROCESSES, *NETWORK)):
            raise PermissionError(f"{event} is not allowed in a conversion")
        if event == "open":
            path, mode, flags = arguments
            writes = flags & WRITING if mode is None else set(mode) & set("wax+")
            if not writes or isinstance(path, int):
                return
        elif event.startswith(CHANGES):
            path = arguments[0]
        else:
            return
        if not os.path.realpath(os.fsdecode(path)).startswith(place + os.sep):
            raise PermissionError(f"{event} of {path!r} is not allowed in a conversion")

    sys.addaudithook(refuse)
