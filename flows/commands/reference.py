"""What there is to choose from: methods, params."""

from typing import Annotated

import typer

from flows.terminal import tell


def methods_command() -> None:
    """List the merge methods: what each does, needs and reads, and its paper."""
    from tasks.reporting.methods_table import methods_table

    tell(methods_table())


def explain_params(
    section: Annotated[
        str | None, typer.Argument(metavar="[SECTION]", help="merge, merge.lore, or a key: merge.lore.mu.")
    ] = None,
) -> None:
    """List the keys of params.yaml: what each takes and means, and its default."""
    from tasks.parameters.explain import explain, explained_text
    from tasks.parameters.params import Params

    tell(explained_text(explain(Params, section)))
