"""What lists in Prefect show: flow runs whose names begin with the verdict, and artifacts with headings."""

import re
from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from tasks.base.errors import LONGEST_SENTENCE, one_line
from tasks.base.markdown import in_markdown
from tasks.base.records.evaluation import Evaluation
from tasks.reporting.table import markdown_tables

SIGNS = {"PROMOTE": "✓", "KEEP": "✗", "INCONCLUSIVE": "?"}
"""Told apart at a glance, also where a name is cut, in fonts that have no pictures."""


def with_sign(decision: str) -> str:
    """Return a decision behind its sign."""
    return f"{SIGNS[decision]} {decision}"


def name_run(name: str) -> None:
    """Rename this flow run."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.id)), name=one_line(name))


def show_evaluation(kind: str, model: str, title: str, sentence: str, evaluation: Evaluation) -> None:
    """Make an artifact of verdict and tables; those of one kind and model are versions of each other."""
    parts = [
        f"## {in_markdown(f'{with_sign(evaluation.verdict.decision)}: {title}')}",
        in_markdown(sentence, LONGEST_SENTENCE),
        markdown_tables(evaluation),
    ]
    create_markdown_artifact(
        markdown="\n\n".join(parts) + "\n",
        key=f"{kind}-{re.sub(r'[^a-z0-9]+', '-', model.lower()).strip('-')}".rstrip("-"),
        description=one_line(f"{evaluation.verdict.decision}: {title}"),
    )
