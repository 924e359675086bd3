"""A PostgreSQL cluster of its own for tests, from the binaries that are installed; the system's is left alone."""

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from tests.support.server_process import Server, free_port

ROLE = "loreline"


def binaries() -> Path:
    """Return the directory of the newest installed server; raises FileNotFoundError."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(debian, key=lambda path: float(path.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    if found is None:
        raise FileNotFoundError("no PostgreSQL server here: apt-get install postgresql")
    return Path(found).resolve().parent


class Cluster(Server):
    """A running cluster, without fsync: for data that nobody misses."""

    ending = signal.SIGINT  # SIGTERM would wait for clients to leave

    def __init__(self, directory: Path) -> None:
        self.port, self.socket, self.bin = free_port(), directory, binaries()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self.user = _unprivileged()
            shutil.chown(directory, self.user)
        data = directory / "data"
        self._run(
            "initdb", "-D", str(data), "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"
        )
        settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"]
        command = [str(self.bin / "postgres"), "-D", str(data), "-k", str(directory), "-p", str(self.port)]
        command += ["-h", "127.0.0.1", *(part for setting in settings for part in ("-c", setting))]
        super().__init__(command, dict(os.environ), directory / "postgresql.log")

    def answers(self) -> object:
        """Read the line that it writes into its own pid file once it takes connections."""
        return "ready" in (self.socket / "data" / "postmaster.pid").read_text().split()

    def new_database(self) -> str:
        """Make an empty database; return what follows driver:// in its URL."""
        name = f"loreline_{uuid.uuid4().hex[:12]}"
        self._run("createdb", "-h", str(self.socket), "-p", str(self.port), "-U", ROLE, name)
        return f"{ROLE}@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(
            command, cwd=self.socket, user=self.user, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")


@contextmanager
def postgresql() -> Iterator[Cluster]:
    """Run a cluster in a directory of its own, which another user may enter as it may not pytest's."""
    directory = Path(tempfile.mkdtemp(prefix="loreline-postgresql-"))
    try:
        cluster = Cluster(directory)
        try:
            yield cluster.launch().wait()
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@cache
def shared_cluster() -> Cluster:
    """Return the one cluster of this process; it ends with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgresql())


def _unprivileged() -> str:
    """Return Debian's own user for it, or nobody."""
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"
