"""Promotion with approval: the table and the verdict in Prefect's UI, and a form for the decision.

The run is suspended while it waits: it occupies no process and survives restarts of worker and machine, and
the server ends it at its time limit. Resumed, it starts from the top, and so judges again.
"""

import re
from itertools import count
from typing import Annotated, Literal, NamedTuple

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import Field

from flows.given_params import given_params
from flows.notifications import tell_moved
from flows.progress import say
from flows.run_names import name_run, show_evaluation, with_sign
from tasks.base.errors import LONGEST_SENTENCE, BadInput
from tasks.base.markdown import in_markdown
from tasks.parameters.params import Params
from tasks.promote_version import Declined, promote_version, refuse
from tasks.registry.promotion import reconcile
from tasks.registry.versions import PROMOTED_AT, ModelVersion
from tasks.reporting.table import markdown_tables
from tasks.verdict.judgement import Judgement, judge_again


class Question(NamedTuple):
    """A question of this run, by a key that Prefect keeps until the run starts again with the answer."""

    version: int
    against_verdict: bool

    def key(self, time: int) -> str:
        """Return the key of the pause, of the how many-th time that it is asked."""
        asked = f"version-{self.version}-{'against' if self.against_verdict else 'by'}-verdict"
        return asked if time == 1 else f"{asked}-{time}"


class Approval(RunInput):
    """Whether this version becomes champion."""

    answer: Annotated[
        Literal["approve", "refuse", "later"],
        Field(description="approve: it becomes champion. refuse: it is told so for ever. later: ask again."),
    ] = "later"
    who: Annotated[str, Field(pattern=r"\S", max_length=200, description="Your name, for the record.")]
    why: Annotated[str, Field(max_length=1000, description="The reason, for the record.")] = ""


def _run_name() -> str:
    given = flow_run.parameters
    name, version = given_params(given.get("params")).register_.name, given.get("version")
    return f"{name} {version or 'challenger'}: to become champion"


@flow(name="promote", flow_run_name=_run_name, persist_result=False)
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
    model = f"{judgement.candidate.name} {judgement.candidate.version}"
    title = f"{model} beside {_champion(judgement) or 'no champion'}"
    show_evaluation("promotion", judgement.candidate.name, title, judgement.sentence, judgement.evaluation)
    name_run(f"{with_sign(judgement.decision)}: {title}")
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
    answer = _ask(question, _described(judgement, force_reason), hours)
    if answer.answer == "refuse":
        return _done(refuse(params.register_, question.version, answer.who, answer.why))
    why = "; ".join(reason for reason in (force_reason, answer.why) if reason)
    try:
        promotion = promote_version(params, question.version, answer.who, why, question.against_verdict)
    except Declined as declined:
        return _done(f"approved by {answer.who}, but not promoted: {declined}")
    if promotion.moved:
        tell_moved(promotion.name, promotion.version, promotion.sentence)
    return _done(promotion.sentence)


def _ask(question: Question, description: str, hours: float) -> Approval:
    """Ask until the answer is not `later`; each time the run is suspended, and starts from the top."""
    known = {"who": user} if (user := _user()) else {}
    for time in count(1):
        answer = suspend_flow_run(
            wait_for_input=Approval.with_initial_data(description=description, **known),
            timeout=round(hours * 3600),
            key=question.key(time),
        )
        if answer.answer != "later":
            return answer
    raise AssertionError("the loop ends with an answer")


def _user() -> str | None:
    """Return who started this run, where Prefect knows its users."""
    context = FlowRunContext.get()
    by = context.flow_run.created_by if context and context.flow_run else None
    return by.display_value if by and by.type == "USER" else None


def _pending_question() -> Question | None:
    """Return the question that this run has asked; challenger and verdict may have changed since."""
    context = FlowRunContext.get()
    policy = context.flow_run.empirical_policy if context and context.flow_run else None
    for key in (policy and policy.pause_keys) or ():
        if found := re.fullmatch(r"version-(\d+)-(against|by)-verdict(?:-\d+)?", key):
            return Question(int(found[1]), found[2] == "against")
    return None


def _described(judgement: Judgement, force_reason: str) -> str:
    version = judgement.candidate
    parts = [
        f"**Champion now: {_champion(judgement) or 'none'}**{_told_of(judgement.champion)}",
        f"**Asked: models:/{version.name}/{version.version}**{_told_of(version)}",
        in_markdown(judgement.sentence, LONGEST_SENTENCE),
        markdown_tables(judgement.evaluation),
    ]
    if judgement.decision != "PROMOTE":
        parts.insert(0, f"**AGAINST THE VERDICT**, which is {judgement.decision}. Forced: {force_reason}")
    return "\n\n".join(parts)


def _champion(judgement: Judgement) -> str | None:
    return f"version {judgement.champion.version}" if judgement.champion else None


def _told_of(version: ModelVersion | None) -> str:
    """Say what a version is: its run, its gain, who promoted it, when and why."""
    tags = version.tags if version else {}
    told = {
        "of": tags.get("loreline.run"),
        "gain": tags.get("loreline.gain"),
        "promoted by": tags.get("loreline.promoted_by"),
        "at": tags.get(PROMOTED_AT, "")[:16],
        "because": tags.get("loreline.promoted_why"),
    }
    return "".join(f", {name} {in_markdown(value)}" for name, value in told.items() if value)


def _done(sentence: str) -> State[str]:
    say(sentence)
    return Completed(message=sentence, data=sentence)
