"""Opening files that others wrote: a device or a pipe in their place is not waited for."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegular(OSError):
    """A device, a pipe or a directory in the place of a file."""


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open a file to read its bytes, and tell its size; raises NotRegular."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not make us wait
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise NotRegular(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb"), status.st_size
