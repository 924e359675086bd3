"""A task as its YAML file defines it: configuration, data and digest; or a group of such tasks."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.parameters.evaluation import ASKED, EvaluateParams

Config = dict[str, Any]
DataFiles = dict[str, list[str]] | list[str]


@dataclass(frozen=True)
class TaskSpec:
    """An lm-eval task whose data files and functions have been found, or a group of such tasks."""

    name: str
    config: Config
    """The configuration for lm-eval; data files are absolute paths, and a Hub data set is at a commit."""
    digest: str
    """Identity of the items: configuration, data, functions and lm-eval's version; paths do not count."""
    members: tuple["TaskSpec", ...] = ()
    """A group's tasks, each once, those of groups in it among them; a task has none."""
    part: "ItemPart | None" = None
    """The part of the documents that counts; None: all."""


class ItemPart(NamedTuple):
    """A part of a task's documents, by their content; the two kinds share none."""

    kind: Literal["test", "vault"]
    share: float
    """The vault's, of all documents."""


def leaves_of(tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Return the tasks, those of groups instead of the groups."""
    return [leaf for task in tasks for leaf in (task.members or (task,))]


class Split(NamedTuple):
    """Tasks, and the parameters to ask and judge them by."""

    params: EvaluateParams
    tasks: list[TaskSpec]

    @property
    def items(self) -> str:
        """Identity of what is asked: tasks, their data, and how they are put."""
        return digest_of([[task.digest for task in self.tasks], self.params.model_dump(include=ASKED)])


class AskedSplits(NamedTuple):
    """All that one judgement asks."""

    test: Split
    vault: Split | None
    select: Split | None


def task_spec(name: str, config: Config, path: Path, commit_of: Callable[[str], str | None]) -> TaskSpec:
    """Describe the task that `config` of the file at `path` defines.

    `commit_of` returns the commit that a Hub data set is at, for one whose revision is not set.
    Raises BadInput for missing data files.
    """
    kwargs = dict(config.get("dataset_kwargs") or {})
    found = _found(kwargs["data_files"], path) if "data_files" in kwargs else []
    if _is_on_hub(config, kwargs) and (commit := commit_of(config["dataset_path"])):
        kwargs["revision"] = commit
    identity = {**config, "task": name, "dataset_kwargs": {**kwargs, "data_files": _contents(found)}}
    own = {**kwargs, "data_files": found} if found else kwargs
    digest = digest_of({"config": _identity(identity), "lm_eval": version("lm_eval")})
    return TaskSpec(name, {**config, "task": name, "dataset_kwargs": own}, digest)


def _is_on_hub(config: Config, kwargs: Config) -> bool:
    """Tell whether a task's data is a data set of the Hub whose revision its file leaves open."""
    path = config.get("dataset_path")
    local = not isinstance(path, str) or kwargs.keys() & {"data_files", "data_dir"} or Path(path).exists()
    return not local and "revision" not in kwargs and not config.keys() & {"class", "custom_dataset"}


def group_spec(name: str, config: Config, children: Sequence[TaskSpec]) -> TaskSpec:
    """Describe a group; the tasks of groups in it become its own, each once."""
    leaves = {leaf.digest: leaf for child in children for leaf in (child.members or (child,))}
    digest = digest_of({"group": name, "aggregate": _identity(aggregated(config)), "members": list(leaves)})
    return TaskSpec(name, config, digest, tuple(leaves.values()))


def aggregated(config: Config) -> list[Config]:
    """Return what a group aggregates: for each metric its name, filters and weights; a task: nothing."""
    listed = config.get("aggregate_metric_list") or []
    return [listed] if isinstance(listed, dict) else list(listed)


def read_task(path: Path, resolve_functions: bool = True) -> Config:
    """Read a task file as lm-eval does: `include` is followed, `!function` imports from its folder."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return dict(load_yaml(path, resolve_func=resolve_functions))
    except Exception as error:  # whatever the user's functions raise when they are imported
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(path, f"not a usable task file ({problem})", "correct or remove it") from error


def _found(data_files: Any, path: Path) -> DataFiles:
    """Resolve data files, which are relative to the task file at `path`; patterns are expanded."""
    if isinstance(data_files, dict):
        return {
            split: _paths(names, path, f"dataset_kwargs.data_files.{split}")
            for split, names in data_files.items()
        }
    return _paths(data_files, path, "dataset_kwargs.data_files")


def _paths(names: Any, path: Path, key: str) -> list[str]:
    names = [names] if isinstance(names, str) else names
    return [found for name in names for found in ([name] if "://" in name else _files(name, path, key))]


def _files(name: str, path: Path, key: str) -> list[str]:
    place = path.parent / name
    literal = place.is_file() or Path(name).is_absolute()
    matches = [place] if literal else sorted(path.parent.glob(name))
    files = [str(match.resolve()) for match in matches if match.is_file()]
    if not files:
        raise BadInput(
            path, f"{key} names {name}, but there is no such file", "create it or correct the path"
        )
    return files


def _contents(files: DataFiles) -> Any:
    if isinstance(files, dict):
        return {split: _contents(paths) for split, paths in files.items()}
    return [name if "://" in name else _sha256(Path(name)) for name in files]


def _identity(value: Any) -> Any:
    """Reduce a configuration to JSON; a function becomes its name and the digest of its file."""
    if isinstance(value, Mapping):
        return {str(key): _identity(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(inner) for inner in value]
    if callable(value):
        return [getattr(value, "__qualname__", type(value).__name__), _source(value)]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _source(function: Callable[..., Any]) -> str:
    file = inspect.getsourcefile(function)
    return _sha256(Path(file)) if file else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
