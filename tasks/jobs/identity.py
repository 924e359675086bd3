"""A job's identity: its training run, and the parameters that decide the merged model and its verdict."""

from typing import Any

from tasks.base.json_digest import digest_of
from tasks.base.records.training_run import TrainingRun
from tasks.parameters.params import Params
from tasks.parameters.section import Section


def that_matter(params: Params) -> dict[str, Any]:
    """Return the parameters that decide the merge and its verdict, plain.

    Left out are: fetch but for base and means, because a run counts by what it holds, not by where it lies or
    how long it was waited for; devices and the batch size, which change the last places of a result at most;
    the addresses of the registry and of search.storage, which differ between hosts and move;
    register.publish, promote and push_to, version, watch and retention, which say when a merge is made and
    what happens after its verdict.

    fetch.base, merge.base and evaluate.include_path are paths and count as they are written: another path may
    hold another base, or other tasks of the same names. Taking two for one would give a wrong verdict, taking
    one for two only a second merge. What lies there is not read, or a comment in a task file would merge
    every run again.

    Defaults are left out, so that a release which adds a parameter or improves one does not merge every run
    again either.
    """
    fetch = params.fetch.model_dump(mode="json", include={"base", "means"}, exclude_defaults=True)
    # sections that were added later are named only where they say something
    added = {"fetch": fetch, "search": _given(params.search, but={"storage", "devices"})}
    return {key: given for key, given in added.items() if given} | {
        "select": _given(params.select),
        "merge": _method(params.merge.method) | _given(params.merge, but={"device", "method"}),
        "evaluate": _given(params.evaluate, but={"batch_size", "device"}),
        "register": _given(params.register_, but={"tracking_uri", "publish", "promote", "push_to"}),
    }


def seen_as(status_digest: str, params: Params) -> str:
    """Return the key of a training run as it was seen, which stays merged when parameters change."""
    return digest_of(["seen", status_digest, params.register_.name])


def key_of(status_digest: str, params: Params) -> str:
    """Return the key of a job: known before any weights are read."""
    return digest_of(["job", status_digest, that_matter(params)])


def identity_of(run: TrainingRun, params: Params) -> str:
    """Return the identity of a merged run: the same wherever its checkpoints lie."""
    return digest_of(["merged run", run.digest, that_matter(params)])


def _method(name: str) -> dict[str, str]:
    """Name the method but for lore, the default of 0.1.0: what it merged keeps its identity."""
    return {} if name == "lore" else {"method": name}


def _given(section: Section, but: set[str] | None = None) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=but, exclude_defaults=True)
