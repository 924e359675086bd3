"""Claims that machines share: one registered model in MLflow for each job, while somebody works on it.

MLflow has no compare-and-set on tags, but it gives every name of a registered model away once, whatever its
database. A claim's name ends in a number. Who takes over from a silent holder takes the next number; the
highest holds, and whoever had a lower one finds out before it publishes anything.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from tasks.base.errors import LorelineError, Unavailable
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import SQLITE, connect, mlflow_errors, place_of, unless_missing, uri_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

CLAIM = "loreline-claim"
HOLDER, BEAT = "loreline.holder", "loreline.beat"
JOB_DIGITS = 32
LEASE_S = 60.0
"""Seconds without a heartbeat after which a holder is silent."""
CLAIM_TRIES = 20
OF_ONE_MACHINE = (SQLITE,)
"""Stores in which there is nothing to claim: the ledger has the claims of one machine."""


class Overtaken(LorelineError):
    """Another machine took over the job; this one's work is dropped."""


class StandingClaim(NamedTuple):
    """A claim as it stands in the registry."""

    name: str
    number: int
    holder: str
    """Who holds it, as it was given."""
    beat: str
    """Another text after each heartbeat: seconds since 1970 by its holder's clock."""


class TeamClaim:
    """The right to work on a job that other machines see, too; as a context manager it sends heartbeats.

    Left, it is given back. In a store that only this machine has there is nothing to claim.
    """

    def __init__(
        self,
        params: RegisterParams,
        lease: float,
        standing: StandingClaim | None = None,
        before: str | None = None,
    ) -> None:
        self.predecessor = before
        """The holder that it was taken over from; None for a job that nobody held."""
        self._params, self._standing = params, standing
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(lease / 4,), name="team claim", daemon=True)

    def confirm(self) -> None:
        """Check that the job is still this claim's; raises Overtaken, or Unavailable without an answer."""
        if self._standing is None:
            return
        client = connect(self._params)
        with mlflow_errors(client.tracking_uri):
            highest = _highest(client, _stem(self._standing))
            if highest is None or highest.holder != self._standing.holder:
                raise Overtaken(
                    place_of(client.tracking_uri),
                    "another machine took over this merge while this one was silent",
                    "its merge counts, this one's work is dropped, and nothing needs to be done",
                )
            unless_missing(lambda: client.set_registered_model_tag(highest.name, BEAT, _now()))

    def __enter__(self) -> Self:
        if self._standing:
            self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._standing is None:
            return
        self._over.set()
        self._heart.join()
        try:
            client = connect(self._params)
            with mlflow_errors(client.tracking_uri):
                _give_back(client, self._standing)
        except LorelineError as problem:
            log.warning("%s (other machines wait %.0f s before they go on)", problem, LEASE_S)

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            try:
                self.confirm()
            except Overtaken:
                return  # the working thread finds out at its next confirm
            except LorelineError as error:
                log.warning("%s (the heartbeat goes on)", error)


def take_claim(
    params: RegisterParams,
    job: str,
    holder: str,
    about: str,
    gone: Callable[[str], bool] = lambda holder: False,
    lease: float = LEASE_S,
) -> TeamClaim | str:
    """Claim a job among the machines of a registry, or return its holder's text; `about` is for people.

    `holder` names this attempt and no other. `gone` tells of a holder that it certainly works no more; of the
    others one is silent whose heartbeat stood still for `lease` seconds by this machine's clock alone.
    Raises Unavailable when MLflow does not answer.
    """
    if uri_of(params).startswith(OF_ONE_MACHINE):
        return TeamClaim(params, lease)
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        for _ in range(CLAIM_TRIES):
            held = _highest(client, f"{CLAIM}-{job[:JOB_DIGITS]}-")
            before = held.holder if held and held.holder != holder else None
            if held and before:
                state = "silent" if gone(before) else _watched(client, held, lease)
                if state == "alive":
                    return before
                if state == "changed":
                    continue
            number = held.number + bool(before) if held else 1  # its own where an answer was lost
            mine = StandingClaim(f"{CLAIM}-{job[:JOB_DIGITS]}-{number}", number, holder, _now())
            if _create(client, mine, about):
                return TeamClaim(params, lease, mine, before)
    raise Unavailable(place_of(client.tracking_uri), f"others claim {about}", "run the same command again")


def _create(client: "MlflowClient", mine: StandingClaim, about: str) -> bool:
    """Take a claim's name, and hold it unless a higher one was taken meanwhile; what is lower goes."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(mine.name, {HOLDER: mine.holder, BEAT: mine.beat}, about)
    except MlflowException as error:
        # the second where the other one was given back just now
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
    highest = _highest(client, _stem(mine))
    if highest and highest.holder == mine.holder:
        for lower in _standing(client, _stem(mine)):
            if lower.number < mine.number:
                _delete(client, lower)
        return True
    if highest and highest.number > mine.number:
        _give_back(client, mine)
    return False


def _watched(
    client: "MlflowClient", held: StandingClaim, lease: float
) -> Literal["alive", "silent", "changed"]:
    """Tell what becomes of a claim; one whose heartbeat is old by its holder's clock is watched.

    Clocks differ, so none but this machine's counts against a holder.
    """
    with suppress(ValueError):
        if abs(time.time() - float(held.beat)) < lease:
            return "alive"
    log.warning("%s is silent; it is watched for %.0f s", held.name, lease)
    deadline = time.monotonic() + lease
    while time.monotonic() < deadline:
        time.sleep(lease / 12)
        now = _highest(client, _stem(held))
        if now != held:
            return "alive" if now and now.holder == held.holder else "changed"
    return "silent"


def _highest(client: "MlflowClient", stem: str) -> StandingClaim | None:
    return max(_standing(client, stem), key=lambda found: found.number, default=None)


def _standing(client: "MlflowClient", stem: str) -> list[StandingClaim]:
    """Return what stands of a job's claims, the lowest first."""
    found = [
        StandingClaim(model.name, int(number), model.tags.get(HOLDER, ""), model.tags.get(BEAT, ""))
        for model in client.search_registered_models(f"name LIKE '{stem}%'")
        if (number := model.name.removeprefix(stem)).isdecimal()
    ]
    return sorted(found, key=lambda standing: standing.number)


def _give_back(client: "MlflowClient", mine: StandingClaim) -> None:
    """Remove a claim, after those that it took over from: none of them may stand when it is gone."""
    for standing in _standing(client, _stem(mine)):
        if standing.number < mine.number or standing.holder == mine.holder:
            _delete(client, standing)


def _delete(client: "MlflowClient", standing: StandingClaim) -> None:
    unless_missing(lambda: client.delete_registered_model(standing.name))


def _stem(standing: StandingClaim) -> str:
    return standing.name.removesuffix(str(standing.number))


def _now() -> str:
    return f"{time.time():.3f}"
