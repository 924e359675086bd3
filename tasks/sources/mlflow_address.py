"""How checkpoints among an MLflow run's artifacts are named, and where they are kept on this machine."""

import re
from pathlib import Path
from typing import NamedTuple

from tasks.base.directories import cache_dir
from tasks.base.errors import BadInput
from tasks.base.records import digest_of

SEGMENT = r"(?!\.{1,2}(?:/|$))[^/\\?#%\x00-\x1f]+"
PATH = rf"{SEGMENT}(?:/{SEGMENT})*"
MLFLOW_ADDRESS = re.compile(rf"mlflow:/runs/(?P<run>[A-Za-z0-9][\w-]*)/(?P<path>{PATH})/?")


class Address(NamedTuple):
    """A directory among the artifacts of an MLflow run."""

    run_id: str
    path: str

    @property
    def place(self) -> Path:
        """Return where its checkpoints are kept, in the user's cache."""
        return cache_dir() / "mlflow" / digest_of([self.run_id, self.path])[:32]

    def __str__(self) -> str:
        return f"mlflow:/runs/{self.run_id}/{self.path}"


def address_of(source: str) -> Address:
    """Read mlflow:/runs/RUN_ID/PATH; raises BadInput for anything else."""
    match = MLFLOW_ADDRESS.fullmatch(source)
    if not match:  # not quoted: it could hold a password
        raise BadInput(
            "fetch.source: not an MLflow address; write mlflow:/runs/RUN_ID/PATH, "
            "where PATH is what the checkpoints were logged under"
        )
    return Address(match["run"], match["path"])


def kept(source: str) -> Path:
    """Return where mlflow:/runs/RUN_ID/PATH/checkpoint-N is kept; raises BadInput when it is not."""
    run, _, name = source.rpartition("/")
    directory = address_of(run).place / name
    if not directory.is_dir():
        raise BadInput(f"{source}: is not kept here any more; loreline fetch --refresh downloads it again")
    return directory
