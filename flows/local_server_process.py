"""`prefect server start`, for SQLite: garbage is collected beside the event loop, or it could stop for 60 s.

A collection that meets the cursor of an abandoned statement waits for its connection. That may be waiting,
for as long as Prefect allows, for the write of another connection, which goes on only when the event loop
does; and nearly every collection starts in the event loop's thread. So they get one that nothing waits for.

`flows.local_server` runs this file by its path, with the arguments of `prefect`; it imports nothing of ours.
"""

import gc
import threading
import time
from itertools import count

EVERY_S = 1.0
ALL_EVERY = 60
"""Every so many collections one includes the oldest generation."""


def collect_apart() -> None:
    """Collect this process's garbage in a thread of its own, and nowhere else."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for turn in count(1):
        time.sleep(EVERY_S)
        gc.collect(1 if turn % ALL_EVERY else 2)


if __name__ == "__main__":
    from prefect.cli import app

    collect_apart()
    app()
