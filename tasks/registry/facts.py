"""A merge's metrics, parameters, tags and description in MLflow, made from the records."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tasks.base.markdown import in_markdown
from tasks.base.publish import Manifest
from tasks.base.records import Evaluation, MergeInput, MergeReport, Selection, TrainingRun, digest_of
from tasks.registry.files import FILES, digest_of_files
from tasks.registry.runs import JUDGEMENT_TAG, MERGE_TAG, mlflow_name
from tasks.registry.versions import RUN_DIGEST, VERDICT

TAG_LIMIT = 100_000  # of a model version's tag; a longer one is refused
DESCRIPTION_LIMIT = 5_000  # the column's width in PostgreSQL; a run's tags take 8000
PARAM_LIMIT = 6_000  # MLflow cuts longer ones, with a warning


class MergeRecords(NamedTuple):
    """All records of a merge."""

    run: TrainingRun
    selection: Selection
    report: MergeReport
    evaluation: Evaluation
    manifest: Manifest


def metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return every score as role/task/metric and every difference as gain_over_role/task/metric."""
    found: dict[str, float] = {}
    for score in evaluation.scores:
        name = mlflow_name(f"{score.model}/{score.metric}")
        found |= {name: score.value.mean, f"{name}.low": score.value.low, f"{name}.high": score.value.high}
    for against in evaluation.differences:
        name, gain = mlflow_name(f"gain_over_{against.against}/{against.metric}"), against.gain
        found |= {name: gain.mean, f"{name}.low": gain.low, f"{name}.high": gain.high}
        if against.p_value is not None:
            found[f"{name}.p_value"] = against.p_value
    return found


def params(report: MergeReport) -> dict[str, str]:
    """Return the method and its parameters, flattened: lore.mu and so on."""
    flat = {"method": report.method, **dict(_flat(report.parameters))}
    return {mlflow_name(key): _fit(str(value), PARAM_LIMIT) for key, value in flat.items()}


def judgement_of(evaluation: Evaluation) -> str:
    """Return the identity of a judgement: the models, the numbers and the decision, in whatever words."""
    numbers = [evaluation.primary, evaluation.models, evaluation.scores, evaluation.differences]
    return digest_of(["judgement", *numbers, evaluation.verdict.decision])


def version_tags(merged: MergeRecords) -> dict[str, str]:
    """Return a version's tags: its origin, its method and its verdict."""
    report = merged.report
    tags = {
        MERGE_TAG: report.digest,
        JUDGEMENT_TAG: judgement_of(merged.evaluation),
        FILES: digest_of_files(merged.manifest),
        VERDICT: merged.evaluation.verdict.decision,
        "loreline.primary": merged.evaluation.primary,
        "loreline.against": merged.evaluation.verdict.against,
        "loreline.run": merged.run.name,
        RUN_DIGEST: merged.run.digest,
        "loreline.steps": json.dumps([source.step for source in report.inputs]),
        "loreline.checkpoints": json.dumps([source.digest for source in report.inputs]),
        "loreline.method": report.method,
        "loreline.parameters": json.dumps(report.parameters, sort_keys=True),
    }
    if several := merged.run.several:
        tags["loreline.runs"] = json.dumps({own.name: own.source for own in several})
    if report.base:
        tags |= {"loreline.base": report.base.address, "loreline.base_digest": report.base.digest}
    return {key: _fit(value, TAG_LIMIT) for key, value in tags.items()}


def run_tags(merged: MergeRecords) -> dict[str, str]:
    """Return the run's tags: the verdict, and the description that MLflow shows."""
    return {VERDICT: merged.evaluation.verdict.decision, "mlflow.note.content": description(merged)}


def title(merged: MergeRecords) -> str:
    """Return the name of the MLflow run."""
    return _fit(f"{merged.run.name}: {merged.report.method} of {len(merged.report.inputs)}", 250)


def description(merged: MergeRecords) -> str:
    """Return the verdict, then what was merged."""
    sources = merged.report.inputs
    spans = "; ".join(_span(list(own)) for _, own in groupby(sources, lambda source: source.run))
    what = (
        f"Merged by {merged.report.method} from {len(sources)} checkpoints "
        f"of {merged.run.name} ({spans}, chosen by {merged.selection.rule})."
    )
    sentences = [merged.evaluation.verdict.sentence, what, *_needs(merged.report), *merged.report.notes]
    return _fit(in_markdown(" ".join(sentences), DESCRIPTION_LIMIT), DESCRIPTION_LIMIT)


def _span(sources: Sequence[MergeInput]) -> str:
    """Return from which step to which checkpoints of one run are."""
    first, last = sources[0], sources[-1]
    steps = f"{first.step} to {last.step}" if len(sources) > 1 else f"{first.step}"
    return f"{first.run} steps {steps}".strip()


def _needs(report: MergeReport) -> list[str]:
    """Say which base an adapter needs."""
    base = report.base
    return [f"It is an adapter, to be loaded on {base.address} (digest {base.digest[:12]})."] if base else []


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _fit(text: str, limit: int) -> str:
    """Cut text that MLflow would refuse or cut silently, and mark the cut; merge.json has all of it."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
