"""What Loreline asks of every kind of place where training runs live: one class for each, in `kinds`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple

from tasks.base.records import LeftOut
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.run_status import RunStatus


class FetchedCheckpoint(NamedTuple):
    """A checkpoint of a training run, on this machine."""

    step: int
    name: str
    """checkpoint-N, or whatever its kind of source calls it."""
    directory: Path
    """Where its files lie: at their source, or in a cache; they are only read."""
    address: str
    """Enough for `RunSource.restore` to bring the same bytes again."""


class FetchedRun(NamedTuple):
    """What a training run offers to merge."""

    checkpoints: list[FetchedCheckpoint]
    """By step."""
    left_out: list[LeftOut]
    """Those that cannot be used, and why."""


class RunSource(ABC):
    """A kind of source; an instance holds no state.

    Whatever talks to a server gets `registry`, which says which MLflow there is, and raises BadInput when
    there is no such thing to read and Unavailable when the server does not answer. No message and no log may
    hold a secret of an address.
    """

    asked_last: ClassVar[bool] = False
    """Whether it gets the addresses that no other kind matches."""

    @abstractmethod
    def matches(self, address: str) -> bool:
        """Tell by its form whether an address names a run, a checkpoint or a root of this kind."""

    def normal_form(self, address: str, project: Path) -> str:
        """Return the one spelling of a run's address, the same from any directory inside the project."""
        return address.rstrip("/")

    @abstractmethod
    def run_name(self, address: str) -> str:
        """Return what to call a run."""

    def directory_of(self, address: str) -> Path | None:
        """Return the directory on this machine that a run is; None for a run that lies elsewhere.

        A relative one starts at the project's directory.
        """
        return None

    @abstractmethod
    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        """Look at a run without reading weights: what would be fetched, and whether the run has ended.

        Where its state does not say so, it has when nothing has changed for `quiet_for` seconds.
        """

    @abstractmethod
    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        """Bring every checkpoint of `params.source` to this machine, whole, and nothing else.

        Only what `checkpoints.layout.is_readable` names is taken: no pickle, no code. Raises BadInput for a
        damaged checkpoint.
        """

    @abstractmethod
    def restore(self, address: str) -> Path:
        """Return the directory of a fetched checkpoint, brought to this machine again where that is needed.

        Raises BadInput when it cannot be had any more.
        """

    @abstractmethod
    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> Iterable[str]:
        """List the addresses of the runs that a root of watch.roots holds now."""
