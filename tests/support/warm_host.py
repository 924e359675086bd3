"""A machine's commands without their seconds of imports: `python warm_host.py LEASE_S`, a JSON list of words a line.

Each command is a process of its own, in a group of its own; its pid and then its exit status are printed.
LEASE_S is how long other machines' claims may be silent, in place of a minute.
"""

import json
import os
import sys
import traceback
from functools import partial


def ready(lease: float) -> None:
    """Import what a merge needs."""
    import lm_eval.evaluator  # noqa: F401
    import mlflow  # noqa: F401
    import torch
    import transformers  # noqa: F401
    from dvc.repo import Repo  # noqa: F401

    import flows.by_hand  # noqa: F401
    from flows import team_claim
    from tasks.registry.team_claim import take_claim

    torch.set_num_threads(1)  # threads do not survive a fork
    team_claim.take_claim = partial(take_claim, lease=lease)  # type: ignore[assignment]


def run(words: list[str]) -> int:
    """Run a command as its user types it, and return its exit status."""
    from flows.cli import main

    sys.argv = words
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    ready(float(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.dup2(2, 1)
            status = run(json.loads(line))
            sys.stderr.flush()
            os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
