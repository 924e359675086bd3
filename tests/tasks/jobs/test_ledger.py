"""Once, and one at a time: a job has one owner, who is replaced when gone and refused when superseded."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tasks.jobs.entries import Settled
from tasks.jobs.ledger import Ledger, LedgerEntry, Superseded
from tests.support.claims import ELSEWHERE, KEY, OTHER, child, claimed, entry_of, rewrite, until


def ended(pid: int) -> None:
    """Wait until a killed process is no more, although its parent has not asked for its exit status yet."""
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


TWENTY = """
import os, sys
from pathlib import Path
from tasks.jobs.ledger import Claim, Ledger
wait, start = os.pipe()
for _ in range(20):
    if os.fork() == 0:
        os.close(start)
        os.read(wait, 1)  # the end of file, which all see at once
        found = Ledger(Path(sys.argv[1])).claim("a" * 64, "runs/x")
        who = f"claim {os.getpid()}" if isinstance(found, Claim) else f"entry {found.owner.pid}"
        os.write(1, f"{who}\\n".encode())
        sys.stdin.read()  # lives until the test has seen all
        os._exit(0)
os.close(start)
sys.stdin.read()
"""


def test_of_twenty_processes_at_the_same_instant_one_claims_and_the_others_name_it(path: Path) -> None:
    with child(TWENTY, path) as processes:
        said = [line(processes).split() for _ in range(20)]
    (winner,) = [pid for what, pid in said if what == "claim"]
    assert [pid for what, pid in said if what == "entry"] == [winner] * 19


HOLD = """
import sys
from pathlib import Path
from tasks.jobs.ledger import Ledger
with Ledger(Path(sys.argv[1])).claim("a" * 64, "runs/x") as claim:
    print(claim.workspace, flush=True)
    sys.stdin.read()
"""


def test_who_is_killed_is_replaced_at_once_with_the_same_workspace(ledger: Ledger, path: Path) -> None:
    with child(HOLD, path) as holder:
        workspace = line(holder)
        standing = entry_of(ledger.claim(KEY, "runs/x"))
        assert standing.owner.pid == holder.pid
        assert standing.sentence == f"is being merged by process {holder.pid} on {standing.owner.host}"
        holder.kill()
        ended(holder.pid)
        claim = claimed(ledger.claim(KEY, "runs/x"))
    assert (claim.token, claim.workspace) == (2, workspace)
    assert claim.predecessor is not None
    assert claim.predecessor.owner == standing.owner


def test_who_is_stopped_lives_however_long_the_silence(ledger: Ledger, path: Path) -> None:
    with child(HOLD, path) as holder:
        line(holder)
        holder.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_STOPPED)
        rewrite(path, beat=time.time() - 1e6)
        assert entry_of(ledger.claim(KEY, "runs/x")).owner.pid == holder.pid
        holder.kill()


@pytest.mark.parametrize("owner", [{"start": "1"}, {"boot": "an earlier one"}])
def test_another_process_under_the_same_id_does_not_hold_the_job(
    ledger: Ledger, path: Path, owner: dict[str, str]
) -> None:
    first = claimed(ledger.claim(KEY, "runs/x"))
    rewrite(path, owner)
    claim = claimed(ledger.claim(KEY, "runs/x"))
    assert (claim.token, claim.workspace) == (2, first.workspace)


@pytest.mark.parametrize("owner", [ELSEWHERE, {"namespace": "pid:[1]"}])
@pytest.mark.parametrize(
    ("age", "stands"),
    [(0, True), (30, True), (-3600, True), (61, False), (-1e6, False)],
)
def test_who_cannot_be_seen_lives_by_the_heartbeat_and_clocks_may_differ(
    ledger: Ledger, path: Path, owner: dict[str, str], age: float, stands: bool
) -> None:
    claimed(ledger.claim(KEY, "runs/x"))
    rewrite(path, owner, beat=time.time() - age)
    assert isinstance(ledger.claim(KEY, "runs/x"), LedgerEntry) is stands


def test_who_fell_silent_is_replaced_elsewhere_and_refused_on_waking(ledger: Ledger, path: Path) -> None:
    stale = claimed(ledger.claim(KEY, "runs/x"))
    silent = rewrite(path, ELSEWHERE, beat=time.time() - 61)
    claim = claimed(ledger.claim(KEY, "runs/x", flow_run="second"))
    assert (stale.workspace, claim.workspace) == (KEY[:16], f"{KEY[:16]}-2")
    assert claim.predecessor == silent
    standing = entry_of(ledger.find(KEY))
    calls: list[Callable[[], object]] = [stale.confirm, lambda: stale.settle("merged", "PROMOTE: mine")]
    for call in calls:
        with pytest.raises(Superseded) as caught:
            call()
        assert str(caught.value).startswith(f"runs/x: {standing.owner} took over")
        assert "nothing needs to be done" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert ledger.find(KEY) == standing
    claim.confirm()
    rewrite(path, ELSEWHERE, beat=time.time() - 61)
    assert claimed(ledger.claim(KEY, "runs/x")).workspace == f"{KEY[:16]}-3"


def test_what_is_merged_stands_with_its_result_until_asked_for_again(ledger: Ledger) -> None:
    with claimed(ledger.claim(KEY, "runs/x", flow_run="first")) as claim:
        settled = claim.settle(
            "merged", "PROMOTE: it gains", identity="i", version="models:/m/3", tag="merge/x"
        )
    assert ledger.claim(KEY, "runs/x") == settled == ledger.find(KEY)
    assert (settled.version, settled.tag, settled.sentence) == ("models:/m/3", "merge/x", "PROMOTE: it gains")
    again = claimed(ledger.claim(KEY, "runs/x", again=True))
    assert (again.token, again.workspace, again.predecessor) == (2, claim.workspace, None)
    assert entry_of(ledger.claim(KEY, "runs/x", again=True)).state == "merging"  # one at a time all the same


def test_a_claim_that_is_withdrawn_leaves_the_job_as_it_was(ledger: Ledger, path: Path) -> None:
    with claimed(ledger.claim(KEY, "runs/x")) as claim:
        claim.withdraw()
    assert ledger.entries() == []
    before = claimed(ledger.claim(KEY, "runs/x")).settle("failed", "no disk")
    with claimed(ledger.claim(KEY, "runs/x")) as claim:
        claim.withdraw()
    assert ledger.entries() == [before]
    first = claimed(ledger.claim(KEY, "runs/x"))
    rewrite(path, ELSEWHERE, beat=time.time() - 61)
    claimed(ledger.claim(KEY, "runs/x"))
    with pytest.raises(Superseded):
        first.withdraw()


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_what_was_refused_or_failed_can_be_claimed_again(ledger: Ledger, state: Settled) -> None:
    first = claimed(ledger.claim(KEY, "runs/x"))
    first.settle(state, "no checkpoint")
    second = claimed(ledger.claim(KEY, "runs/x"))
    assert (second.token, second.workspace, second.predecessor) == (2, first.workspace, None)
    with pytest.raises(Superseded):
        first.settle("merged", "too late")


def test_the_same_run_copied_elsewhere_is_found_by_its_identity(ledger: Ledger) -> None:
    claimed(ledger.claim(KEY, "runs/x")).settle("merged", "KEEP: it loses", identity="same")
    claimed(ledger.claim(OTHER, "/copies/x")).settle("failed", "no disk", identity="other")
    assert entry_of(ledger.merged_as("same")).source == "runs/x"
    assert ledger.merged_as("other") is None
    assert [entry.key for entry in ledger.entries()] == [OTHER, KEY]


def test_a_run_that_was_merged_is_known_whatever_the_parameters(ledger: Ledger) -> None:
    assert ledger.merged_before("as seen") is None
    claimed(ledger.claim(KEY, "runs/x", seen="as seen")).settle("failed", "no disk")
    assert ledger.merged_before("as seen") is None
    claimed(ledger.claim(OTHER, "runs/x", seen="as seen")).settle("merged", "KEEP: it loses")
    assert entry_of(ledger.merged_before("as seen")).key == OTHER
    assert ledger.merged_before("as it is now") is None
    claimed(ledger.claim(OTHER, "runs/x", again=True)).settle("merged", "KEEP: it loses again")
    assert entry_of(ledger.merged_before("as seen")).sentence == "KEEP: it loses again"


def works(ledger: Ledger, worker: int) -> None:
    """Wait for a worker's first claim."""
    until(lambda: any(entry.owner.pid == worker for entry in ledger.entries()))


WORK = """
import os, random, sys
from pathlib import Path
from tasks.jobs.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), lease=0.01)
for _ in sys.stdin:
    worker = os.fork()
    while worker == 0:
        with ledger.claim(random.choice("abc") * 64, "runs/x", again=True) as claim:
            claim.confirm()
            claim.settle("merged", str(claim.token), identity=str(claim.token), tag=str(claim.token))
    print(worker, flush=True)
"""


def test_thirty_kills_in_the_middle_of_claims_and_heartbeats_leave_whole_entries(
    ledger: Ledger, path: Path
) -> None:
    """After each, entries are those of one moment, tokens never go back, and the next claim goes on."""
    moment, tokens, broken_off = random.Random(0), dict.fromkeys(("a" * 64, "b" * 64, "c" * 64), 0), 0
    with child(WORK, path) as workers:
        assert workers.stdin is not None
        for _ in range(30):
            print(file=workers.stdin, flush=True)
            worker = int(line(workers))
            works(ledger, worker)
            time.sleep(moment.uniform(0, 0.03))
            os.kill(worker, signal.SIGKILL)
            ended(worker)
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            for entry in ledger.entries():
                assert entry.token >= tokens[entry.key]
                tokens[entry.key] = entry.token
                if entry.state == "failed":
                    continue
                if entry.state == "merged":
                    assert {entry.sentence, entry.identity, entry.tag} == {str(entry.token)}
                    continue
                assert (entry.state, entry.owner.pid, entry.identity) == ("merging", worker, None)
                claim = claimed(ledger.claim(entry.key, "runs/x"))
                assert (claim.token, claim.workspace) == (entry.token + 1, entry.key[:16])
                claim.settle("failed", "broken off")
                broken_off += 1
                tokens[entry.key] += 1
            claimed(ledger.claim("a" * 64, "runs/x", again=True)).settle("failed", "between two kills")
            tokens["a" * 64] += 1
    assert broken_off > 5
