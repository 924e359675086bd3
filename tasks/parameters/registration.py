"""The section register: where the merge is registered, and who may promote it."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tasks.base.errors import without_secrets
from tasks.parameters.section import Section


class RegisterParams(Section):
    """Where the merge is registered and who may promote it."""

    name: Annotated[str, Field(pattern=r"^[^/:]+$", max_length=250)] = "loreline"
    """The MLflow registered model."""
    tracking_uri: str | None = None
    """MLflow server; unset: $MLFLOW_TRACKING_URI, else SQLite in the state directory."""

    @field_validator("tracking_uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        """Keep secrets out of what is logged, hashed and committed."""
        try:
            urlsplit(uri or "")
        except ValueError as error:  # brackets that hold no IPv6 address
            raise ValueError("is not a usable address", "correct it") from error
        if uri and without_secrets(uri) != uri:
            raise ValueError(
                "holds a user, a password or a query",
                "leave it null and set MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, in the environment",
            )
        return uri

    publish: Literal["flow", "always"] = "flow"
    """flow: `loreline run`, `loreline register`, the flows, and `dvc repro` on the main branch register;
    `dvc exp run` and `dvc repro` elsewhere register nothing. always: those, too."""
    promote: Literal["manual", "auto"] = "manual"
    """auto: a PROMOTE verdict moves the alias champion; manual: only `loreline promote` does."""
    push_to: Annotated[str | None, Field(pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$", max_length=200)] = None
    """A repository of the Hub, org/name: a promoted merge is published there as a pull request."""
