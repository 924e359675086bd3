"""The protocol of sources: what each kind of place for training runs implements, one class in `kinds`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from tasks.base.records.training_run import Conversion, LeftOut
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.run_status import RunStatus


class FetchedCheckpoint(NamedTuple):
    """A checkpoint of a training run, on this machine."""

    step: int
    name: str
    """checkpoint-N, or whatever its kind of source calls it."""
    directory: Path
    """Directory of its files, at their source or in a cache; they are only read."""
    address: str
    """Address from which `RunSource.restore` brings the same bytes again."""
    averaged: int = 1
    """Steps whose weights' mean it is; 1 for the weights of its own step."""
    conversion: Conversion | None = None
    """Set where `directory` holds what was made of its pickled state."""
    run: str = ""
    """Name of its run, where several are merged."""


class FetchedRun(NamedTuple):
    """A training run's checkpoints on this machine."""

    checkpoints: list[FetchedCheckpoint]
    """By step."""
    left_out: list[LeftOut]
    """Those that cannot be used, and why."""
    means: Sequence[FetchedCheckpoint] = ()
    """Means over the steps up to each, by step, where `fetch.means` asks for them."""


class RunSource(ABC):
    """A kind of source; instances hold no state.

    Methods that talk to a server get `registry`, which names the MLflow server, and raise BadInput when there
    is nothing at the address and Unavailable when the server does not answer. No message and no log may
    contain a secret from an address.
    """

    asked_last: ClassVar[bool] = False
    """Whether it takes the addresses that no other kind matches."""

    @abstractmethod
    def matches(self, address: str) -> bool:
        """Tell by its form whether an address names a run, a checkpoint or a root of this kind."""

    def normal_form(self, address: str, project: Path) -> str:
        """Return the one spelling of a run's address, the same from any directory inside the project."""
        return address.rstrip("/")

    @abstractmethod
    def run_name(self, address: str) -> str:
        """Return a run's name."""

    def directory_of(self, address: str) -> Path | None:
        """Return the directory of a run on this machine; None for a run elsewhere.

        A relative one starts at the project's directory.
        """
        return None

    @abstractmethod
    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        """Return a run's status, without reading weights.

        Where its state does not say that it has ended, it has when nothing changed for `quiet_for` seconds.
        """

    @abstractmethod
    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        """Bring every checkpoint of the run `params.address` to this machine.

        Only what `checkpoints.layout.is_readable` names is taken: no pickle, no code. Raises BadInput for a
        damaged checkpoint.
        """

    @abstractmethod
    def restore(self, address: str) -> Path:
        """Return the directory of a fetched checkpoint, downloading it again where needed.

        Raises BadInput when it is no longer available.
        """

    @abstractmethod
    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> Iterable[str]:
        """List the addresses of the runs that a root of watch.roots holds now."""
