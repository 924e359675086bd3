"""What goes wrong with the Hub, in one sentence each, and nothing secret in it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.base.errors import BadInput, LorelineError, Unavailable


@contextmanager
def plain_errors(where: str) -> Iterator[None]:
    """Say in one sentence what went wrong, without any URL: those can carry signatures."""
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
            return BadInput(f"{where}: is gated; ask for access on its page and set HF_TOKEN")
        case hub.RepositoryNotFoundError():
            return BadInput(f"{where}: no such repository, or a private one; check the name, or set HF_TOKEN")
        case hub.RevisionNotFoundError():
            return BadInput(f"{where}: no such branch, tag or commit; check it on the repository's page")
        case hub.HfHubHTTPError(response=response) if response.status_code in (401, 403):
            return BadInput(f"{where}: access is refused; set HF_TOKEN to a token that may read it")
        case hub.HfHubHTTPError(response=response):
            return Unavailable(f"{where}: the Hub answers HTTP {response.status_code}; try again later")
        case httpx2.TransportError():
            return Unavailable(
                f"{where}: the Hub cannot be reached ({type(error).__name__}); check the network "
                "and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use what is cached"
            )
        case OSError(errno=int(), strerror=str(reason)):
            return LorelineError(f"{where}: cannot be stored ({reason}); make room, or set HF_HUB_CACHE")
    return Unavailable(
        f"{where}: the answers make no sense ({type(error).__name__}); try again later, or check HF_ENDPOINT"
    )


def _without_queries(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", record.getMessage()), ()
    return True
