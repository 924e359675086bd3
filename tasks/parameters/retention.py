"""The section retention: what `loreline prune` leaves."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.section import Section


class RetentionParams(Section):
    """What `loreline prune` leaves; what an alias points at stays in any case, and so does every record."""

    newest: Annotated[int, Field(ge=1)] = 10
    """So many of the newest versions keep their weights."""
    promoted_within: Annotated[float, Field(ge=0)] = 90.0
    """Days after its last promotion for which a version keeps its weights."""
    leftovers: Annotated[float, Field(ge=1)] = 30.0
    """Days for which workspaces of runs that failed, results of evaluations and Prefect's ended runs stay."""
