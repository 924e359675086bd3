"""Whether the Prefect server that is configured takes this process's credentials."""

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.base.errors import BadInput, without_secrets

REFUSES = "does not take the credentials of the environment, or there are none"
CREDENTIALS = "set PREFECT_API_AUTH_STRING=user:password (or PREFECT_API_KEY) in the environment"


def check_access() -> None:
    """Raise BadInput where the configured server refuses; what else fails is for whoever uses it."""
    if not (url := PREFECT_API_URL.value()):
        return
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        try:
            client.api_version()
        except PrefectHTTPStatusError as error:
            if refuses(error):
                raise BadInput(without_secrets(url), REFUSES, CREDENTIALS) from None
        except (httpx.HTTPError, ValueError):
            return


def refuses(error: PrefectHTTPStatusError) -> bool:
    """Tell whether a server asks for other credentials."""
    return error.response.status_code in (401, 403)
