"""Options that several commands have, and paths."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.base.errors import BadInput


def local_path(text: str | Path) -> Path:
    """Return a path; raises BadInput for an address, and does not quote it: it may hold a password."""
    if "://" in str(text):  # a default is a path
        raise BadInput("the command line", "names an address where a path belongs", "name a local one")
    return Path(text)


Set = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter; repeatable.")
]
Refresh = Annotated[bool, typer.Option("--refresh", help="Fetch the run again although it was fetched.")]
LOCAL: dict[str, Any] = {"parser": local_path, "metavar": "PATH"}
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file.", **LOCAL)]
