"""A merge's metrics, parameters, tags and description in MLflow, made from the records."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.base.errors import LONGEST_SENTENCE, without_secrets
from tasks.base.json_digest import digest_of
from tasks.base.markdown import gain_text, in_markdown, interval_text, markdown_table
from tasks.base.publish import Manifest
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.base.records.record import Interval
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import TrainingRun
from tasks.registry.files import FILES, digest_of_files
from tasks.registry.people import whoami
from tasks.registry.runs import BYTES, GAIN, JUDGEMENT_TAG, MERGE_TAG, SECONDS, mlflow_name
from tasks.registry.versions import RUN_DIGEST, VERDICT

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

TAG_LIMIT = 5_000  # of a run's tag
FACT_LIMIT = 20_000  # all of them are one tag of a version, of 100000
DESCRIPTION_LIMIT = 5_000  # the column's width in PostgreSQL; a run's tags take 8000
PARAM_LIMIT = 6_000  # MLflow cuts longer ones, with a warning


class MergeRecords(NamedTuple):
    """All records of a merge."""

    run: TrainingRun
    selection: Selection
    report: MergeReport
    evaluation: Evaluation
    manifest: Manifest


def metrics(merged: MergeRecords, seconds: float | None = None) -> dict[str, float]:
    """Return GAIN, which decides, scores as role/task/metric, and differences as gain_over_role/task/metric.

    MLflow lists them in this order: those of the deciding metric come first. `seconds` is how long the merge
    took, from the turn on the device to the registration.
    """
    evaluation = merged.evaluation
    found = {GAIN: evaluation.decisive.gain.mean, **_ends(GAIN, evaluation.decisive.gain)}
    for score in sorted(evaluation.scores, key=lambda score: score.metric != evaluation.primary):
        name = mlflow_name(f"{score.model}/{score.metric}")
        found |= {name: score.value.mean, **_ends(name, score.value)}
    for against in sorted(evaluation.differences, key=lambda gain: gain.metric != evaluation.primary):
        name = mlflow_name(f"gain_over_{against.against}/{against.metric}")
        found |= {name: against.gain.mean, **_ends(name, against.gain)}
        if against.p_value is not None:
            found[f"{name}.p_value"] = against.p_value
    found[BYTES] = sum(file.size for file in merged.manifest.files)
    return found if seconds is None else found | {SECONDS: seconds}


def params(merged: MergeRecords) -> dict[str, str]:
    """Return what was merged and how, the parameters flattened: lore.mu and so on."""
    report, selection, evaluation = merged.report, merged.selection, merged.evaluation
    flat: dict[str, Any] = {
        "method": report.method,
        **dict(_flat(report.parameters)),
        "run": merged.run.name,
        "source": without_secrets(merged.run.source),
        "select.rule": selection.rule,
        "select.metric": selection.metric,
        "checkpoints": len(report.inputs),
        "steps": [source.step for source in report.inputs],
        "primary": evaluation.primary,
    }
    if report.base:
        flat["base"] = report.base.address
    return {mlflow_name(key): _fit(str(value), PARAM_LIMIT) for key, value in flat.items()}


def judgement_of(evaluation: Evaluation) -> str:
    """Return the identity of a judgement: the models, the numbers and the decision, in whatever words."""
    numbers = [evaluation.primary, evaluation.models, evaluation.scores, evaluation.differences]
    return digest_of(["judgement", *numbers, evaluation.verdict.decision])


def version_facts_of(merged: MergeRecords) -> dict[str, str]:
    """Return a version's facts: its origin, its method and its verdict."""
    report, evaluation = merged.report, merged.evaluation
    facts = {
        MERGE_TAG: report.digest,
        JUDGEMENT_TAG: judgement_of(evaluation),
        FILES: digest_of_files(merged.manifest),
        VERDICT: evaluation.verdict.decision,
        "loreline.gain": _gain(evaluation),
        "loreline.primary": evaluation.primary,
        "loreline.against": evaluation.verdict.against,
        "loreline.run": merged.run.name,
        RUN_DIGEST: merged.run.digest,
        "loreline.steps": json.dumps([source.step for source in report.inputs]),
        "loreline.checkpoints": json.dumps([source.digest for source in report.inputs]),
        "loreline.method": report.method,
    }
    if several := merged.run.several:
        facts["loreline.runs"] = json.dumps({own.name: own.source for own in several})
    if report.base:
        facts |= {"loreline.base": report.base.address, "loreline.base_digest": report.base.digest}
    return {key: _fit(value, FACT_LIMIT) for key, value in facts.items()}


def run_tags(merged: MergeRecords) -> dict[str, str]:
    """Return the run's tags: the verdict, and what MLflow shows as description, source and user."""
    return {
        VERDICT: merged.evaluation.verdict.decision,
        "mlflow.note.content": description(merged),
        "mlflow.source.name": _fit(without_secrets(merged.run.source), TAG_LIMIT),
        "mlflow.source.type": "JOB",
        "mlflow.user": whoami(),
    }


def title(merged: MergeRecords) -> str:
    """Return the name of the MLflow run, the verdict first: lists cut names."""
    method = f"{merged.report.method} of {len(merged.report.inputs)}"
    return _fit(f"{merged.evaluation.verdict.decision}: {merged.run.name}, {method}", 250)


def model_name(merged: MergeRecords) -> str:
    """Return the name of the logged model, in the characters that MLflow takes there."""
    return re.sub(r"[^\w\- ]", "-", merged.run.name)[:200] or "merge"


def datasets(evaluation: Evaluation) -> list["DatasetInput"]:
    """Return the tasks that judged, each with the digest of its test items."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(name=_fit(task, 500), digest=digest[:16], source_type="lm-eval", source=task),
            [InputTag("mlflow.data.context", "test")],
        )
        for task, digest in evaluation.items.items()
    ]


def description(merged: MergeRecords, report: str | None = None) -> str:
    """Return the verdict, the deciding metric's table, what was merged, and where the report is."""
    sources = merged.report.inputs
    spans = "; ".join(_span(list(own)) for _, own in groupby(sources, lambda source: source.run))
    what = (
        f"Merged by {merged.report.method} from {len(sources)} checkpoints "
        f"of {merged.run.name} ({spans}, chosen by {merged.selection.rule})."
    )
    paragraphs = [
        in_markdown(merged.evaluation.verdict.sentence, LONGEST_SENTENCE),
        _table(merged.evaluation),
        *([report] if report else []),
        *(in_markdown(sentence, LONGEST_SENTENCE) for sentence in [what, *_needs(merged.report)]),
        *(f"- {in_markdown(note, LONGEST_SENTENCE)}" for note in merged.report.notes),
    ]
    return _fit("\n\n".join(paragraphs), DESCRIPTION_LIMIT)


def _table(evaluation: Evaluation) -> str:
    """Show every model on the deciding metric, those that it had to beat with its gain."""
    scores = {each.model: each.value for each in evaluation.scores if each.metric == evaluation.primary}
    gains = {each.against: each.gain for each in evaluation.differences if each.metric == evaluation.primary}
    rows = [
        [
            in_markdown(model.label),
            interval_text(scores[model.role]),
            gain_text(gains[model.role]) if model.role in gains else "",
        ]
        for model in evaluation.models
    ]
    return markdown_table([in_markdown(evaluation.primary), "score", "merge's gain"], rows)


def _gain(evaluation: Evaluation) -> str:
    """Return the deciding gain in words."""
    over = next(each.label for each in evaluation.models if each.role == evaluation.verdict.against)
    return f"{gain_text(evaluation.decisive.gain)} in {evaluation.primary} over {over}"


def _ends(name: str, value: Interval) -> dict[str, float]:
    return {f"{name}.low": value.low, f"{name}.high": value.high}


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
