"""A version's tags: six that a person reads, and the rest, which code reads, as one record in JSON.

Releases before kept every fact in a tag of its own; both are read, and `loreline.NAME` names a fact in both.
"""

import json
from collections.abc import Iterable, Mapping

RECORD = "loreline.record"
OURS = "loreline."
FOR_PEOPLE = ("loreline.run", "loreline.verdict", "loreline.gain", "loreline.steps", "loreline.report")
"""Beside the git tag, which the version gets when it is committed."""


def packed(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a version with these facts."""
    rest = {key.removeprefix(OURS): value for key, value in facts.items() if key not in FOR_PEOPLE}
    shown = {key: facts[key] for key in FOR_PEOPLE if key in facts}
    return shown | {RECORD: json.dumps(rest, sort_keys=True, ensure_ascii=False)}


def unpacked(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the facts in a version's tags; what has a tag of its own counts, as it may be newer."""
    try:
        record = json.loads(tags.get(RECORD, "{}"))
        found = {f"{OURS}{name}": str(value) for name, value in record.items()}
    except (ValueError, AttributeError, RecursionError):  # somebody wrote into the tag
        found = {}
    return found | {key: value for key, value in tags.items() if key != RECORD}


def filters(key: str, digest: str) -> Iterable[str]:
    """Return MLflow's filters for versions of which a fact is this digest, as each release wrote it."""
    within = json.dumps({key.removeprefix(OURS): digest})[1:-1]
    return f"tags.`{key}` = '{digest}'", f"tags.`{RECORD}` LIKE '%{within}%'"
