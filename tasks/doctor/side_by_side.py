"""Running checks in parallel processes, so that one that hangs or crashes does not affect the others."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from tasks.base.errors import LorelineError, without_secrets
from tasks.doctor.finding import Finding, Level


class Check(NamedTuple):
    """A check and its name."""

    name: str
    look: Callable[[], list[Finding]]
    """Picklable: a module's function, or a partial of one."""
    silence: Level = "warning"
    """Level when it does not end in time, which may only mean that the machine is busy."""


class _Running(NamedTuple):
    checks: Sequence[Check]
    process: BaseProcess
    reports: Connection


def side_by_side(lanes: Sequence[Sequence[Check]], seconds: float) -> list[Finding]:
    """Run lanes in parallel, the checks within one in order, and return all findings.

    Checks that have not ended after `seconds` are killed and reported.
    """
    deadline = time.monotonic() + seconds
    running = [_start(checks) for checks in lanes]
    try:
        return [finding for lane in running for finding in _findings(lane, deadline, seconds)]
    finally:
        for lane in running:
            lane.process.kill()
            lane.process.join()


def _start(checks: Sequence[Check]) -> _Running:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    reports, report = context.Pipe(duplex=False)
    process = context.Process(target=_look, args=(checks, report), daemon=True)
    process.start()
    report.close()  # or the end of the process would not show as EOF
    return _Running(checks, process, reports)


def _findings(lane: _Running, deadline: float, seconds: float) -> Iterator[Finding]:
    """Yield each check's findings in turn, and one finding for each check that cannot report any more."""
    for i, check in enumerate(lane.checks):
        try:
            if lane.reports.poll(max(deadline - time.monotonic(), 0)):
                yield from lane.reports.recv()
                continue
            ended, level = f"no answer within {seconds:.0f} s", check.silence
        except EOFError:
            lane.process.join()
            ended, level = f"ended with code {lane.process.exitcode}", "problem"
        yield Finding("Doctor", check.name, ended, level, _AGAIN)
        for other in lane.checks[i + 1 :]:
            yield Finding("Doctor", other.name, f"not reached, after {check.name}", "warning")
        return


_AGAIN = "run loreline doctor again when the machine, its disks and its network are at rest"


def _look(checks: Sequence[Check], report: Connection) -> None:
    """Send each check's findings; what libraries print is discarded."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (not a path of ours)
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    for check in checks:
        report.send(_found(check))


def _found(check: Check) -> list[Finding]:
    """Return a check's findings, or one that names its error."""
    try:
        return check.look()
    except LorelineError as error:
        return [Finding("Doctor", check.name, f"{error.subject}: {error.problem}", "problem", error.remedy)]
    except Exception as error:
        problem = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
        return [Finding("Doctor", check.name, f"could not be looked at: {problem}", "warning")]
