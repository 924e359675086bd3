"""The fixed version that merges are held to besides the champion, so that small losses cannot add up."""

from typing import TYPE_CHECKING

from tasks.parameters.registration import RegisterParams
from tasks.registry.store import mlflow_errors
from tasks.registry.versions import PROMOTED_AT, ModelVersion, version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


def reference(client: "MlflowClient", params: RegisterParams, number: int | None) -> ModelVersion | None:
    """Return the version of this number, else the one that was promoted first; None before a promotion.

    Raises BadInput for a number that is not in the registry.
    """
    with mlflow_errors(client.tracking_uri):
        if number is None:
            number = _first_promoted(client, params.name)
        return None if number is None else version_of(client, params.name, number)


def _first_promoted(client: "MlflowClient", name: str) -> int | None:
    quote, token, promoted = '"' if "'" in name else "'", None, list[tuple[str, int]]()
    while True:
        page = client.search_model_versions(f"name = {quote}{name}{quote}", page_token=token)
        promoted += [(v.tags[PROMOTED_AT], int(v.version)) for v in page if PROMOTED_AT in v.tags]
        token = page.token
        if not token:
            return min(promoted)[1] if promoted else None
