"""Finding tasks, and checking before a model is loaded what can be checked: names, YAML, data files."""

import difflib
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.base.records import digest_of
from tasks.evaluation.results import named_metrics
from tasks.parameters.evaluation import EvaluateParams

Config = dict[str, Any]
DataFiles = dict[str, list[str]] | list[str]

MEMBERS_SHOWN = 8

PER_ITEM = {
    "loglikelihood": {"acc"},
    "multiple_choice": {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"},
}
"""By output type, those of lm-eval's metrics that have one number per item; generation has many more."""


@dataclass(frozen=True)
class TaskSpec:
    """An lm-eval task whose data files and functions have been found."""

    name: str
    config: Config
    """What lm-eval gets; local data files are absolute paths."""
    digest: str
    """Identity of what is asked: configuration, data, functions, lm-eval's version; not where they lie."""


def load_tasks(names: Sequence[str], include_path: Path | None) -> list[TaskSpec]:
    """Find each named task, first below `include_path`, then among those that lm-eval ships.

    Raises BadInput for unknown names, groups, broken YAML and missing data files.
    """
    index = _index(include_path) if include_path else {}
    if not index.keys() >= set(names):
        index = {**_shipped(), **index}
    return [_spec(name, _yaml_of(name, index, include_path)) for name in names]


def check_tasks(params: EvaluateParams) -> list[TaskSpec]:
    """Find the tasks that are asked for; raises BadInput for unknown ones, within seconds."""
    specs = load_tasks(params.tasks, Path(params.include_path) if params.include_path else None)
    check_asked(specs, params)
    return specs


def check_asked(tasks: Sequence[TaskSpec], params: EvaluateParams) -> None:
    """Raise BadInput for a metric of a task that is not evaluated, or that the task cannot report."""
    specs = {task.name: task for task in tasks}
    for key, name in named_metrics(params):
        task, _, metric = name.partition("/")
        if task not in specs:
            raise BadInput(f"{key}: {name} is of a task that is not in evaluate.tasks ({', '.join(specs)})")
        known = _reported(specs[task].config)
        if known and metric not in known:
            raise BadInput(f"{key}: {task} does not report {metric}, only {', '.join(sorted(known))}")


def _reported(config: Config) -> set[str] | None:
    """Return the metrics that a task will report, where its file alone tells."""
    metrics, kind = config.get("metric_list"), config.get("output_type")
    if not metrics or kind not in PER_ITEM or config.keys() & {"process_results", "filter_list", "class"}:
        return None
    return {"nll"} | (PER_ITEM[kind] & {str(metric["metric"]) for metric in metrics})


def _index(include_path: Path) -> dict[str, Any]:
    """Map names to lm-eval's index entries; files that it cannot read are left out."""
    if not include_path.is_dir():
        raise BadInput(
            f"evaluate.include_path: {include_path} is not a directory; name the one of the YAML files"
        )
    from lm_eval.tasks import TaskManager

    return dict(TaskManager(include_path=str(include_path), include_defaults=False).task_index)


@cache
def _shipped() -> dict[str, Any]:
    """Read some 14 000 files, which takes seconds: only for names that are not local."""
    from lm_eval.tasks import TaskManager

    return dict(TaskManager().task_index)


def _yaml_of(name: str, index: Mapping[str, Any], include_path: Path | None) -> Path:
    if name not in index:
        for path in sorted(include_path.rglob("*.yaml")) if include_path else ():
            _read(path)  # a broken file may be what should have defined it
        near = difflib.get_close_matches(name, index, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see lm-eval's task list, or add a YAML file"
        raise BadInput(f"evaluate.tasks: unknown task {name}; {hint}")
    members = list(_members(name, index))
    if members != [name]:
        more = f" and {len(members) - MEMBERS_SHOWN} more" if len(members) > MEMBERS_SHOWN else ""
        named = ", ".join(members[:MEMBERS_SHOWN]) + more
        raise BadInput(
            f"evaluate.tasks: {name} is a group, which has no items of its own; name its tasks: {named}"
        )
    return Path(index[name].yaml_path)


def _members(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tasks of a group or tag; a task is its own only member."""
    entry = index.get(name)
    if entry is None or (entry.yaml_path and "group" not in entry.cfg):
        yield name
        return
    for member in entry.cfg["task"] if entry.cfg else sorted(entry.tags):
        child = member if isinstance(member, str) else member.get("task") or member.get("group")
        if isinstance(child, str) and child != name:
            yield from _members(child, index)


def _spec(name: str, path: Path) -> TaskSpec:
    config = _read(path, resolve_functions=True)
    kwargs = dict(config.get("dataset_kwargs") or {})
    found = _found(kwargs["data_files"], path) if "data_files" in kwargs else []
    identity = {**config, "dataset_kwargs": {**kwargs, "data_files": _contents(found)}}
    if found:
        config = {**config, "dataset_kwargs": {**kwargs, "data_files": found}}
    digest = digest_of({"config": _identity(identity), "lm_eval": version("lm_eval")})
    return TaskSpec(name=name, config=config, digest=digest)


def _read(path: Path, resolve_functions: bool = False) -> Config:
    """Read a task file as lm-eval does: `include` is followed, `!function` imports from its folder."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return dict(load_yaml(path, resolve_func=resolve_functions))
    except Exception as error:  # whatever the user's functions raise when they are imported
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(f"{path}: not a usable task file ({problem}); correct or remove it") from error


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
            f"{path}: {key} names {name}, but there is no such file; create it or correct the path"
        )
    return files


def _contents(files: DataFiles) -> Any:
    if isinstance(files, dict):
        return {split: _contents(paths) for split, paths in files.items()}
    return [name if "://" in name else _sha256(Path(name)) for name in files]


def _identity(value: Any) -> Any:
    """Reduce a configuration to JSON; a function is known by its name and the file it comes from."""
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
