"""params.yaml as a whole: its sections, and reading it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import load_yaml, override, parse
from tasks.parameters.registration import RegisterParams
from tasks.parameters.retention import RetentionParams
from tasks.parameters.search import SearchParams
from tasks.parameters.section import Section
from tasks.parameters.selection import SelectParams
from tasks.parameters.version import VersionParams
from tasks.parameters.watch import WatchParams

PARAMS_FILE = Path("params.yaml")
"""In the directory of a project, where every command runs."""
CHOSEN = "LORELINE_PARAMS"
"""Names another file, for the processes that `loreline serve --params` starts."""


class Params(Section):
    """params.yaml as a whole."""

    fetch: FetchParams
    select: SelectParams = SelectParams()
    search: SearchParams = SearchParams()
    merge: MergeParams = MergeParams()
    evaluate: EvaluateParams
    register_: Annotated[RegisterParams, Field(alias="register")] = RegisterParams()
    version: VersionParams = VersionParams()
    watch: WatchParams = WatchParams()
    retention: RetentionParams = RetentionParams()


def params_file() -> Path:
    """Return the parameter file of flows that are given no parameters."""
    return Path(os.environ.get(CHOSEN) or PARAMS_FILE)


def choose_params(path: Path) -> None:
    """Make another file than the usual one that of this process, and of those that it starts."""
    if path != PARAMS_FILE:
        os.environ[CHOSEN] = str(path.absolute())


def read_params(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Read params.yaml and apply `section.key=value` overrides.

    Raises BadInput naming the key, what is wrong and what would be right.
    """
    tree = load_yaml(path)
    for setting in overrides:
        override(tree, setting)
    return parse(Params, tree, where=path.name)
