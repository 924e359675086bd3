"""Tell Prefect that a training run has ended, from a process of its own.

`flows.callback` runs this file by its path, with the training's environment and working directory, so that
Prefect's own settings apply. It imports nothing of Loreline: a user's own package called flows is no matter.
"""

import re
import signal
import sys
from datetime import datetime
from pathlib import Path

EVENT = "loreline.training.ended"


def announce(run: str, name: str, patience: float) -> str:
    """Send the event, and return a sentence on what became of it; never starts a server.

    `patience` is in seconds, for each answer of the server.
    """
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return "no Prefect server is configured (PREFECT_API_URL); the watcher will find the run"
    resource = {"prefect.resource.id": f"loreline.run.{run}", "prefect.resource.name": name}
    event = Event(event=EVENT, resource=resource, payload={"run": run, "name": name})
    with get_client(sync_client=True, httpx_settings={"timeout": patience}) as client:
        # Unlike emit_event, which streams in the background, this ends with the server's answer.
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    return "announced"


def main(run: str, name: str, seconds: str, log: str) -> None:
    """Announce, and append one line to the log; whatever happens, the process is gone after `seconds`."""
    signal.alarm(int(seconds))
    try:
        outcome = announce(run, name, patience=float(seconds) / 2)
    except Exception as error:
        problem = re.sub(r"//[^/\s]*@", "//", " ".join(str(error).split()))[:300]
        outcome = f"not announced, the watcher will find the run: {type(error).__name__}: {problem}"
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with Path(log).open("a") as lines:
        lines.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {run}: {outcome}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
