"""Requests to the Hugging Face Hub, with retries, and with errors as ours that hold no secrets."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tasks.base.errors import BadInput, LorelineError, Unavailable

RETRIES, FIRST_WAIT = 5, 1.0


def offline() -> bool:
    """Tell whether huggingface_hub is set to use only its cache."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def endpoint() -> str:
    """Return the Hub's address as it is set now; huggingface_hub itself reads it once, when imported."""
    from huggingface_hub import constants

    address = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    try:
        place = urlsplit(address).netloc
    except ValueError as error:  # brackets that hold no IPv6 address
        raise BadInput("HF_ENDPOINT", "is not a usable address", "correct it, or unset it") from error
    if "@" in place:  # huggingface_hub logs every URL that fails
        raise BadInput(
            "HF_ENDPOINT", "holds a user name or password", "leave it out and set HF_TOKEN instead"
        )
    return address


def ask(path: str) -> Any:
    """Return the Hub API's answer; HfApi's own calls do not retry and have no time limit."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
        http_backoff,
    )

    response = http_backoff(
        "GET",
        f"{endpoint()}/api/models/{path}",
        headers=build_hf_headers(),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        max_retries=RETRIES,
        base_wait_time=FIRST_WAIT,
    )
    hf_raise_for_status(response)
    return response.json()


def patiently(download: Callable[[], str]) -> str:
    """Retry a download after errors that huggingface_hub does not retry itself."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(RETRIES):
        try:
            return download()
        except httpx2.TransportError:
            pass
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
        time.sleep(FIRST_WAIT * 2**attempt)
    return download()


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Turn errors of the Hub into ours, without URLs, which can carry signatures."""
    from huggingface_hub.utils import logging as hub_logging  # importing it sets its handler up

    for handler in hub_logging.get_logger().handlers:
        handler.addFilter(_without_queries)
    try:
        yield
    except LorelineError:
        raise
    except Exception as error:
        raise _translate(where, error) from None


def _translate(where: str, error: BaseException) -> LorelineError:
    import httpx2
    from huggingface_hub import errors as hub

    while error.__cause__ and not isinstance(error, hub.HfHubHTTPError | httpx2.TransportError):
        error = error.__cause__
    match error:
        case hub.GatedRepoError():
            return BadInput(where, "is gated", "ask for access on its page and set HF_TOKEN")
        case hub.RepositoryNotFoundError():
            return BadInput(where, "no such repository, or a private one", "check the name, or set HF_TOKEN")
        case hub.RevisionNotFoundError():
            return BadInput(where, "no such branch, tag or commit", "check it on the repository's page")
        case hub.HfHubHTTPError(response=response) if response.status_code in (401, 403):
            return BadInput(where, "access is refused", "set HF_TOKEN to a token that may do this")
        case hub.HfHubHTTPError(response=response):
            return Unavailable(where, f"the Hub answers HTTP {response.status_code}", "try again later")
        case httpx2.TransportError():
            return Unavailable(
                where,
                f"the Hub cannot be reached ({type(error).__name__})",
                "check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use what is cached",
            )
        case OSError(errno=int(), strerror=str(reason)):
            return LorelineError(where, f"cannot be stored ({reason})", "make room, or set HF_HUB_CACHE")
    return Unavailable(
        where,
        f"the answers make no sense ({type(error).__name__})",
        "try again later, or check HF_ENDPOINT",
    )


def _without_queries(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", record.getMessage()), ()
    return True
