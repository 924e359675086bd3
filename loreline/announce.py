"""Announcing the end of a training run to Prefect, by one request from a process of its own.

`loreline.callback` runs this file by its path. It uses only the standard library, so that packages beside the
training script cannot interfere.
"""

import base64
import json
import os
import signal
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

EVENT = "loreline.training.ended"
RUN, PROJECT = "loreline.run", "loreline.project"
"""What the ids of runs begin with: of those that any project may take, and before a project's name."""
PROJECT_NAMED = "LORELINE_PROJECT"
URL = "PREFECT_API_URL"
NO_SERVER = f"{URL} is not set in the environment of the training (a Prefect profile is not read)"


def announce(run: str, name: str) -> str:
    """Send the event to the server that the environment names, and return the outcome in words.

    The text quotes no address, header or exception, which may hold passwords.
    """
    why = _post([_event(run, name)])
    return _not_announced(why) if why else "announced"


def server_problem(patience: float = 10.0) -> str | None:
    """Return why no announcement would arrive now, as one of no events shows; None where it would.

    `patience` is in seconds for each wait on the network. The text quotes as little as that of `announce`.
    """
    return _post([], patience)


def _post(events: list[dict[str, Any]], patience: float | None = None) -> str | None:
    """Send events; return why they did not arrive, None when they did."""
    if not (url := os.environ.get(URL, "").strip()):
        return NO_SERVER
    try:
        with _opener().open(_request(urlsplit(url), events), timeout=patience) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code}; {_advice(error.code)}"
    except OSError as error:  # URLError, too
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or type(cause).__name__
        return f"{reason}; can the server of {URL} be reached from here?"
    except Exception as error:
        return f"{type(error).__name__}; check {URL} and what is set beside it"
    return None


def announce_log() -> Path:
    """Return the file that logs the outcome of each announcement."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    usual = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return (chosen if chosen.is_absolute() else usual.expanduser()) / "loreline" / "announce.log"


def _event(run: str, name: str) -> dict[str, Any]:
    project = os.environ.get(PROJECT_NAMED, "").strip()
    kind = f"{PROJECT}.{project}" if project else RUN
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now().astimezone().isoformat(),
        "event": EVENT,
        "resource": {"prefect.resource.id": f"{kind}.{run}", "prefect.resource.name": name},
        "payload": {"run": run, "name": name, "host": socket.gethostname(), "project": project},
    }


def _request(url: SplitResult, events: list[dict[str, Any]]) -> urllib.request.Request:
    headers = {"Content-Type": "application/json", "User-Agent": "loreline"}  # urllib's own is often refused
    if authorization := _authorization(url):
        headers["Authorization"] = authorization
    bare = url._replace(netloc=url.netloc.rpartition("@")[2], path=f"{url.path.rstrip('/')}/events")
    return urllib.request.Request(bare.geturl(), json.dumps(events).encode(), headers)


def _authorization(url: SplitResult) -> str | None:
    """Return the header's value; as in Prefect's client the address comes first, then the auth string."""
    user = f"{unquote(url.username)}:{unquote(url.password or '')}" if url.username else None
    key = os.environ.get("PREFECT_API_KEY", "").strip()
    if pair := user or os.environ.get("PREFECT_API_AUTH_STRING", "").strip():
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return f"Bearer {key}" if key else None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: the key is for the named server, not for one that it points to."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return None, which makes the response an HTTPError."""


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that uses proxies for https only, since a proxy could read the key in plain http."""
    proxies = {scheme: url for scheme, url in urllib.request.getproxies().items() if scheme == "https"}
    certificates = ssl.create_default_context(cafile=os.environ.get("PREFECT_API_SSL_CERT_FILE") or None)
    https = urllib.request.HTTPSHandler(context=certificates)
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies), https, _NoRedirect)


def _advice(code: int) -> str:
    if code in (401, 403):
        return "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY where training runs"
    if code < 500:  # redirects are not followed
        return f"is {URL} the server's own address, with /api at its end?"
    return "its log says why"


def _not_announced(why: str) -> str:
    return f"not announced, the watcher will find the run: {why}"


def _main(run: str, name: str, seconds: str) -> None:
    """Announce, and append one line to the log; the process ends after `seconds` at the latest."""
    signal.alarm(int(seconds))
    patience = 0.8 * int(seconds)
    outcomes = [_not_announced(f"no answer within {patience:.0f} s")]
    asking = threading.Thread(target=lambda: outcomes.append(announce(run, name)), daemon=True)
    asking.start()
    asking.join(patience)  # a socket's time-out would not cover looking up the name, nor the whole response
    log = announce_log()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="backslashreplace") as lines:
        lines.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {run}: {outcomes[-1]}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
