"""Checking within seconds that a server answers, its clock, and whether it asks for a password."""

import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from tasks.base.errors import without_secrets
from tasks.doctor.finding import Area, Finding

WAIT_S = 3.0
SKEW_S = 30.0
"""Smaller clock differences do not matter to leases and schedules."""


class Answer(NamedTuple):
    """A server's response."""

    status: int
    text: str
    ahead: float | None
    """Seconds that its clock is ahead of ours, to about a second; None when it does not give its time."""


def probe(url: str) -> Answer | None:
    """Return a server's response; None when there is none.

    Raises requests.RequestException or ValueError for an address that cannot be used.
    """
    before = time.time()
    try:
        response = requests.get(url, timeout=WAIT_S, allow_redirects=False)
    except (requests.ConnectionError, requests.Timeout):
        return None
    now = (before + time.time()) / 2  # the server wrote its Date somewhere between
    return Answer(response.status_code, response.text, _ahead(response.headers.get("Date"), now))


def clock_of(server: str, answer: Answer) -> list[Finding]:
    """Compare a server's clock with this machine's."""
    if answer.ahead is None:
        return []
    if abs(answer.ahead) <= SKEW_S:
        return [Finding("Clock", server, f"within {max(abs(answer.ahead), 1):.0f} s of this machine's")]
    text = f"{abs(answer.ahead):.0f} s {'ahead of' if answer.ahead > 0 else 'behind'} this machine's"
    remedy = "synchronise both with NTP (timedatectl set-ntp true): leases and schedules go by them"
    return [Finding("Clock", server, text, "warning", remedy)]


def unguarded(area: Area, server: str, path: str) -> list[Finding]:
    """Warn of a server that others can reach, and that answers a request at `path` without credentials."""
    place = without_secrets(server).rstrip("/")
    try:
        host = urlsplit(place).hostname or ""
    except ValueError:  # brackets that hold no IPv6 address; whoever connects says so
        return []
    if host in ("localhost", "::1") or host.startswith("127."):
        return []
    try:  # an auth of its own keeps requests from looking into ~/.netrc
        response = requests.get(
            f"{place}/{path}", timeout=WAIT_S, allow_redirects=False, auth=lambda request: request
        )
    except (requests.RequestException, ValueError):
        return []
    if response.status_code not in (200, 404):
        return []
    remedy = "give it a password, or let only those reach it who may run code here (docs/security.md)"
    return [Finding(area, "access", f"{place} answers without a password", "warning", remedy)]


def _ahead(date: str | None, now: float) -> float | None:
    """Return how far a Date header is ahead of `now`; it has whole seconds, hence half a second is added."""
    try:
        return parsedate_to_datetime(date).timestamp() + 0.5 - now if date else None
    except ValueError:
        return None
