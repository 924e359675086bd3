"""Stage promote, outside the pipeline: moving the champion alias by verdict, by force, or back."""

import json
import random
import time
import uuid

from tasks.base.errors import BadInput, LorelineError
from tasks.base.records.record import Record
from tasks.base.records.registration import Registration
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import STORY, TEXT_LIMIT, AliasChange, lock_location, utc_now
from tasks.registry.hub_publication import publish_version
from tasks.registry.promotion import carry_out, mend, reconcile
from tasks.registry.store import connect, mlflow_errors, store_lock
from tasks.registry.versions import (
    CHAMPION,
    PREVIOUS,
    PUSH,
    VERDICT,
    Contended,
    ModelVersion,
    aliases,
    verify_files,
    version_of,
    versions_of_merge,
)
from tasks.verdict.judgement import Judgement, judge_again

REFUSED = "loreline.refused"
AUTO = "register.promote: auto"
PROMOTION_ATTEMPTS = 5
NAME_LIMIT = 200
PAUSE_S = (0.2, 1.0)  # between attempts, at random, so that two machines do not meet for ever


class Promotion(Record):
    """The result of a promotion or a rollback."""

    name: str
    version: int
    over: int | None
    """The champion before; None when there was none, or nothing moved."""
    moved: bool
    sentence: str


class Declined(BadInput):
    """A promotion refused because of the evidence or a pending push; nothing moved."""


def promote_version(params: Params, version: int | None, by: str, why: str, force: bool = False) -> Promotion:
    """Make a version (unset: the challenger) champion: judged again, and verified file by file.

    When another one becomes champion meanwhile, it is judged against that one. The former champion becomes
    previous-champion; who, when, why and the evidence become tags of the version. With `force` the verdict
    may say what it likes: it is recorded, and the tag loreline.forced says so for ever. Then it is published
    on the Hub where register.push_to says so; when that fails, the promotion stands, and the next call
    publishes.
    Raises Declined when the verdict is not PROMOTE or the DVC push is pending, BadInput when a file changed
    or nothing is known about the version, Contended when others kept moving the champion.
    """
    _require(by=by, **({"why": why} if force else {}))
    reconcile(params.register_)
    for left in reversed(range(PROMOTION_ATTEMPTS)):
        judgement = judge_again(params, version)
        version = judgement.candidate.version  # The challenger may be another by the next attempt.
        if judgement.reigns:
            return _published(params.register_, _nothing(judgement.candidate, judgement.sentence))
        _decide(judgement, force)
        try:
            promotion = _promote(params.register_, judgement, by, why, force)
        except Contended:
            if not left:
                raise
            time.sleep(random.uniform(*PAUSE_S))
        else:
            return _published(params.register_, promotion)
    raise AssertionError("the last attempt returns or raises")


def promote_if_auto(params: Params, registration: Registration) -> Promotion | None:
    """Promote a registered version where register.promote is auto; None where it is manual.

    Never one that is older than the champion, was champion before and was replaced, or that somebody refused:
    people decide about those.
    """
    if params.register_.promote != "auto":
        return None
    reconcile(params.register_)
    client = connect(params.register_)
    with mlflow_errors(client.tracking_uri):
        version = version_of(client, registration.name, registration.version)
        now = aliases(client, registration.name)
        judged_before = versions_of_merge(client, registration.name, version.digest)
    if reason := _held_back(version, judged_before, now):
        held = _nothing(version, f"not promoted: {reason}")
        return _published(params.register_, held) if now.get(CHAMPION) == version.version else held
    try:
        return promote_version(params, version.version, by=AUTO, why="the verdict is PROMOTE")
    except Declined as declined:
        return _nothing(version, f"not promoted: {declined}")


def roll_back(params: RegisterParams, by: str, why: str) -> Promotion:
    """Make previous-champion champion again, verified file by file; the two change places.

    So a second rollback returns to where the first one began. Raises BadInput when there is no previous
    champion or one of its files changed.
    """
    _require(by=by)
    reconcile(params)
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, params.name) as lock:
        now = aliases(client, params.name)
        if PREVIOUS not in now or now.get(CHAMPION) == now[PREVIOUS]:
            raise BadInput(
                params.name,
                f"no other version has the alias {PREVIOUS}, nothing to go back to",
                "name a version: loreline promote --version N",
            )
        version = version_of(client, params.name, now[PREVIOUS])
        verify_files(client, version)
        move = _move("rollback", version, now, by, why, lock_location(lock.lock_file))
        carry_out(client, params.name, move)
    return _told(move, version, "rolled back")


def refuse(params: RegisterParams, version: int, by: str, why: str) -> str:
    """Record a decision against a version, and return it as a sentence; no alias moves."""
    _require(by=by)
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        said = json.dumps({"by": by, "when": utc_now(), "why": why[:TEXT_LIMIT]})
        client.set_model_version_tag(params.name, str(version), REFUSED, said)
    return f"models:/{params.name}/{version} refused by {by}" + (f": {why}" if why else "")


def _promote(params: RegisterParams, judgement: Judgement, by: str, why: str, force: bool) -> Promotion:
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, params.name) as lock:
        mend(client, params.name, lock_location(lock.lock_file))
        now = aliases(client, params.name)
        judged_against = judgement.champion.version if judgement.champion else None
        if now.get(CHAMPION) != judged_against:
            raise Contended(params.name, "the champion changed meanwhile", "run the same command again")
        version = version_of(client, params.name, judgement.candidate.version)
        if version.tags.get(PUSH) == "pending":
            raise Declined(
                f"models:/{params.name}/{version.version}",
                "its DVC push is pending",
                "run loreline run again when the remote answers",
            )
        verify_files(client, version)
        move = _move("promotion", version, now, by, why, lock_location(lock.lock_file))
        evidence = {"evidence": judgement.evidence, "forced": force and judgement.decision != "PROMOTE"}
        move = move.model_copy(update=evidence)
        carry_out(client, params.name, move)
    return _told(move, version, f"FORCED, {judgement.sentence}" if move.forced else judgement.sentence)


def _published(params: RegisterParams, promotion: Promotion) -> Promotion:
    """Publish a champion on the Hub where that is wanted, and say so."""
    if params.push_to is None:
        return promotion
    try:
        told = publish_version(params, params.push_to, promotion.version)
    except LorelineError as error:
        raise error.within(f"{promotion.sentence.rstrip('.')}; but it is not published") from None
    return promotion.model_copy(update={"sentence": f"{promotion.sentence.rstrip('.')}; {told}"})


def _decide(judgement: Judgement, force: bool) -> None:
    if judgement.decision != "PROMOTE" and not force:
        version = judgement.candidate
        raise Declined(
            f"models:/{version.name}/{version.version}",
            judgement.sentence.rstrip("."),
            "promote a version that was shown to be better, or force it with a reason",
        )


def _held_back(version: ModelVersion, same: list[ModelVersion], now: dict[str, int]) -> str | None:
    """Return why a version is not promoted by itself; what people decided of the `same` merge counts."""
    verdict = version.tags.get(VERDICT)
    if now.get(CHAMPION) == version.version:
        return "it is champion already"
    if now.get(CHAMPION, 0) > version.version:
        return f"version {now[CHAMPION]}, which is newer, is champion"
    if verdict != "PROMOTE":
        return f"its verdict is {verdict}"
    if now.get(PREVIOUS) == version.version or any(STORY in other.tags for other in same):
        return "it was champion before and was replaced"
    return "it was refused" if any(REFUSED in other.tags for other in same) else None


def _move(
    kind: str, version: ModelVersion, now: dict[str, int], by: str, why: str, place: str
) -> AliasChange:
    return AliasChange(
        kind=kind,
        token=uuid.uuid4().hex,
        version=version.version,
        over=now.get(CHAMPION),
        previous=now.get(PREVIOUS),
        by=by[:NAME_LIMIT],
        when=utc_now(),
        why=why[:TEXT_LIMIT],
        evidence="",
        forced=False,
        place=place,
    )


def _require(**needed: str) -> None:
    for key, value in needed.items():
        if not value.strip():
            raise BadInput(
                f"--{key}", "empty", f"say {('who you are' if key == 'by' else 'why')} for the record"
            )


def _told(move: AliasChange, version: ModelVersion, why: str) -> Promotion:
    was = "there was none before" if move.over is None else f"was {move.over}"
    sentence = f"champion: models:/{version.name}/{version.version} ({was}), {why}"
    return Promotion(
        name=version.name, version=version.version, over=move.over, moved=True, sentence=sentence
    )


def _nothing(version: ModelVersion, sentence: str) -> Promotion:
    return Promotion(name=version.name, version=version.version, over=None, moved=False, sentence=sentence)
