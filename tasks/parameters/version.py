"""The section version: how the outputs are versioned."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.section import Section


class VersionParams(Section):
    """How the outputs are versioned."""

    branch: Annotated[str, Field(pattern=r"^[\w][\w./-]*$")] = "merges"
    """The git branch that gets a commit of dvc.lock and params.yaml for each merged run; made if missing."""
    push: bool = False
    """dvc push to the default remote after the run; until it succeeds, the merge cannot be promoted."""
    git_remote: Annotated[str, Field(pattern=r"^[\w][\w./-]*$")] | None = None
    """The git remote to which version.push pushes the branch and the tags, too; unset: to none."""
