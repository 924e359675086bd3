"""A process is told apart from every other that was or will be, and only what can be seen is said of it."""

import signal
import subprocess
import sys

import psutil
import pytest

from tasks.jobs.process_owner import Owner, lives, this_process

CHILD = """
import sys
from tasks.jobs.process_owner import this_process
print(this_process().model_dump_json(), flush=True)
sys.stdin.read()
"""


def test_this_process_lives_and_is_named_for_people() -> None:
    me = this_process()
    assert me == this_process()
    assert lives(me) is True
    assert str(me) == f"process {me.pid} on {me.host}"


def test_a_process_lives_while_it_is_stopped_and_no_longer_once_it_is_killed_even_if_nobody_waited_for_it() -> (
    None
):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        owner = Owner.model_validate_json(child.stdout.readline())
        assert owner.pid == child.pid
        assert lives(owner) is True
        child.send_signal(signal.SIGSTOP)
        os_view = psutil.Process(child.pid)
        while os_view.status() != psutil.STATUS_STOPPED:
            pass
        assert lives(owner) is True
        child.kill()
        while os_view.status() != psutil.STATUS_ZOMBIE:
            pass
        assert lives(owner) is False
        child.wait()
        assert lives(owner) is False


@pytest.mark.parametrize(
    ("elsewhere", "known"),
    [
        ({"start": "1"}, False),  # the id was used again
        ({"boot": "an earlier one"}, False),  # and so it was after a restart
        ({"namespace": "pid:[1]"}, None),  # another container, where the id is another process's
        ({"host": "another"}, None),
        ({"host": "another", "boot": "its own"}, None),
    ],
)
def test_an_id_used_again_fools_nobody_and_what_cannot_be_seen_is_not_known(
    elsewhere: dict[str, str], known: bool | None
) -> None:
    assert lives(this_process().model_copy(update=elsewhere)) is known
