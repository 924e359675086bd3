"""`loreline prune`: what retention lets go, shown, and removed where that is asked for.

Removals are planned from what is there, so a call that was cut short is completed by the next one.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from flows.old_flow_runs import old_flow_runs, remove_flow_runs
from flows.places import project_of
from flows.terminal import tell
from tasks.base.directories import state_dir
from tasks.doctor.finding import gigabytes
from tasks.evaluation.result_cache import old_results
from tasks.jobs.ledger import idle_workspaces
from tasks.parameters.params import Params
from tasks.registry.history import MergedRun, merged_runs
from tasks.registry.retention import Retained, prune_version, retained, version_facts, weights_of
from tasks.versioning.commit import removable_tag, remove_tag
from tasks.versioning.git_remote import remove_remote_tag
from tasks.versioning.weight_objects import MergeObjects, merge_objects, remove_objects
from tasks.versioning.worktree import close_workspace


class Removal(NamedTuple):
    """Something that retention lets go."""

    what: str
    why: str
    remove: Callable[[], str | None]
    """Removes it, and returns why it did not."""


def prune_old(params: Params, root: Path, do: bool) -> None:
    """Say what is kept and what is let go, and with `do` remove that.

    Raises Unavailable when the registry or the DVC remote does not answer; Prefect's runs are then named as
    not looked at.
    """
    now = time.time()
    decided = retained(version_facts(params.register_), params.retention, now)
    kept = [f"{one.number} ({one.why})" for one in decided if one.kept]
    tell(f"{params.register_.name} keeps the weights of {', '.join(kept) or 'no version: there is none'}")
    count = 0
    for removal in _removals(params, root, decided, now):
        count += 1
        refusal = removal.remove() if do else None
        done = f"kept, {refusal}" if refusal else "removed" if do else "would go"
        tell(f"{done}: {removal.what} ({removal.why})")
    if not count:
        tell("nothing to remove")
    elif not do:
        tell("nothing was removed; loreline prune --yes removes what would go")


def _removals(params: Params, root: Path, decided: list[Retained], now: float) -> Iterator[Removal]:
    yield from _versions(params, root, decided)
    age = timedelta(days=params.retention.leftovers)
    before, old = now - age.total_seconds(), f"older than {age.days} days"
    for place in idle_workspaces(state_dir() / "runs"):
        # a run that is taken up again rewrites what lies at the top, which may leave the directory's own time
        if max(path.stat().st_mtime for path in (place, *place.iterdir())) < before:
            yield Removal(
                f"workspace {place.name}", f"{old}, nobody works in it", partial(close_workspace, place, root)
            )
    if files := old_results(before):
        size = gigabytes(sum(path.stat().st_size for path in files))
        yield Removal(f"{len(files)} results of evaluations, {size}", old, partial(_unlink, files))
    runs = old_flow_runs(datetime.fromtimestamp(before, UTC), project_of(params))
    if isinstance(runs, str):
        tell(f"Prefect's runs are not looked at: {runs}")
    elif runs:
        yield Removal(f"{len(runs)} ended flow runs in Prefect", old, partial(remove_flow_runs, runs))


def _versions(params: Params, root: Path, decided: list[Retained]) -> Iterator[Removal]:
    """Yield what is left of the versions that are let go, the oldest first."""
    runs = {int(run.model.rpartition("/")[2]): run for run in merged_runs(params.register_)}
    let_go = {one.number: one.why for one in decided if not one.kept and one.number in runs}
    objects = merge_objects(
        root,
        {str(number): hash_ for number in let_go if (hash_ := runs[number].dvc)},
        [run.dvc for number, run in runs.items() if number not in let_go and run.dvc],
        [tag for number in let_go if (tag := runs[number].tag)],
    )
    for number, why in sorted(let_go.items()):
        stored = weights_of(params.register_, number)
        own = objects.get(str(number), MergeObjects({}, ()))
        run = runs[number]
        tag = run.tag if run.tag and run.revision and removable_tag(root, run.tag, run.revision) else None
        parts = [
            f"{gigabytes(sum(stored.values()))} in the registry" if stored else "",
            f"{gigabytes(sum(own.here.values()))} in DVC's cache" if own.here else "",
            f"{len(own.remote)} objects on the DVC remote" if own.remote else "",
            f"the tag {tag}" if tag else "",
        ]
        if any(parts):
            what = f"weights of version {number}: {', '.join(part for part in parts if part)}"
            yield Removal(what, why, partial(_prune, params, root, run, own, why))


def _prune(params: Params, root: Path, run: MergedRun, objects: MergeObjects, why: str) -> str | None:
    if not prune_version(params.register_, int(run.model.rpartition("/")[2]), why):
        return "it is in use now"
    if run.tag and run.revision:
        if remote := params.version.git_remote if params.version.push else None:
            remove_remote_tag(root, remote, run.tag, run.revision)
        remove_tag(root, run.tag, run.revision)  # last: the next call plans by it
    if objects.here or objects.remote:
        remove_objects(root, objects)
    return None


def _unlink(files: list[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
