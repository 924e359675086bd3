"""Which items belong together, such as questions on one passage: a field of their documents says it."""

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.base.errors import BadInput
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams


def cluster_field(task: TaskSpec, params: EvaluateParams) -> str | None:
    """Return the field that evaluate.cluster names for a task, else the one that its metadata names."""
    asked = params.cluster.get(task.name) if isinstance(params.cluster, dict) else params.cluster
    metadata = task.config.get("metadata")
    return asked or (metadata.get("cluster") if isinstance(metadata, dict) else None)


def check_clusters(task: str, documents: Iterable[Mapping[str, Any]], field: str) -> None:
    """Raise BadInput for the first document that lacks the field, or has null there as data sets fill it."""
    for place, document in enumerate(documents):
        if document.get(field) is None:
            raise BadInput(
                "evaluate.cluster",
                f"document {place} of {task} has no {field}",
                "name one that every document has, or the field of each task in a mapping",
            )
