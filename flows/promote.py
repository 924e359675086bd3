"""Promotion with approval: the table and the verdict in Prefect's UI, and a form for the decision.

The run is suspended while it waits: it occupies no process and survives restarts of worker and machine, and
the server ends it at its time limit. Resumed, it starts from the top, and so judges again.
"""

import re
from typing import Annotated, NamedTuple

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from prefect.states import Completed
from pydantic import Field

from flows.given_params import given_params
from flows.notifications import tell_moved
from flows.progress import say
from tasks.base.errors import BadInput
from tasks.parameters.params import Params
from tasks.promote_version import Declined, promote_version, refuse
from tasks.registry.promotion import reconcile
from tasks.reporting.table import markdown_tables
from tasks.verdict.judgement import Judgement, judge_again


class Question(NamedTuple):
    """A question of this run, by a key that Prefect keeps until the run starts again with the answer."""

    version: int
    against_verdict: bool

    @property
    def key(self) -> str:
        """Return the key of the pause."""
        return f"version-{self.version}-{'against' if self.against_verdict else 'by'}-verdict"


class Approval(RunInput):
    """Whether this version becomes champion."""

    approve: Annotated[bool, Field(description="On: it becomes champion. Off: it is refused.")] = False
    who: Annotated[str, Field(pattern=r"\S", max_length=200, description="Your name, for the record.")]
    why: Annotated[str, Field(max_length=1000, description="The reason, for the record.")] = ""


@flow(name="promote", persist_result=False)
def promote(
    version: Annotated[int, Field(ge=1)] | None = None,
    params: Params | None = None,
    hours: Annotated[float, Field(gt=0)] = 24.0,
    force_reason: Annotated[str, Field(max_length=1000)] = "",
) -> State[str]:
    """Judge a version against the champion of now, ask for approval, and make it champion if it is granted.

    Args:
        version: The model version; unset: what the alias challenger points at.
        params: Tasks, metric and registry; unset: what params.yaml says.
        hours: How long to wait for an answer; then the run fails and nothing has moved.
        force_reason: Ask even if the verdict is not PROMOTE, for this reason, which stays on record for ever.
    """
    params = given_params(params)
    for sentence in reconcile(params.register_):
        say(sentence)
    pending = _pending_question()
    judgement = judge_again(params, pending.version if pending else version)
    _show(judgement)
    if judgement.reigns:
        return _done(judgement.sentence)
    if judgement.decision != "PROMOTE" and not force_reason and not pending:
        return _done(f"not promoted: {judgement.sentence}")
    if deployment.id is None:
        raise BadInput(
            "promote",
            "it asks in Prefect's UI, for which it has to run as a deployment",
            "start it there under loreline serve, or use loreline promote",
        )
    question = pending or Question(judgement.candidate.version, judgement.decision != "PROMOTE")
    answer = suspend_flow_run(
        wait_for_input=Approval.with_initial_data(description=_described(judgement, force_reason)),
        timeout=round(hours * 3600),
        key=question.key,
    )
    if not answer.approve:
        return _done(refuse(params.register_, question.version, answer.who, answer.why))
    why = "; ".join(reason for reason in (force_reason, answer.why) if reason)
    try:
        promotion = promote_version(params, question.version, answer.who, why, question.against_verdict)
    except Declined as declined:
        return _done(f"approved by {answer.who}, but not promoted: {declined}")
    if promotion.moved:
        tell_moved(promotion.name, promotion.version, promotion.sentence)
    return _done(promotion.sentence)


def _pending_question() -> Question | None:
    """Return the question that this run has asked; challenger and verdict may have changed since."""
    context = FlowRunContext.get()
    policy = context.flow_run.empirical_policy if context and context.flow_run else None
    for key in (policy and policy.pause_keys) or ():
        if found := re.fullmatch(r"version-(\d+)-(against|by)-verdict", key):
            return Question(int(found[1]), found[2] == "against")
    return None


def _described(judgement: Judgement, force_reason: str) -> str:
    version, champion = judgement.candidate, judgement.champion
    now = f"version {champion.version}" if champion else "nobody"
    parts = [
        f"Make models:/{version.name}/{version.version} champion? Now it is {now}.",
        f"**{judgement.sentence}**",
        markdown_tables(judgement.evaluation),
    ]
    if judgement.decision != "PROMOTE":
        parts.insert(0, f"**AGAINST THE VERDICT**, which is {judgement.decision}. Forced: {force_reason}")
    return "\n\n".join(parts)


def _show(judgement: Judgement) -> None:
    create_markdown_artifact(
        markdown=f"**{judgement.sentence}**\n\n{markdown_tables(judgement.evaluation)}\n",
        key="promotion",
        description=f"models:/{judgement.candidate.name}/{judgement.candidate.version} beside the champion",
    )


def _done(sentence: str) -> State[str]:
    say(sentence)
    return Completed(message=sentence, data=sentence)
