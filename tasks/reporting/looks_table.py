"""The looks at test items and vaults as `loreline looks` prints them."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from tasks.base.errors import one_line
from tasks.registry.looks import Look
from tasks.verdict.wear import VAULT_LOOKS, chance_of_error, optimism

NO_LOOKS = "no test items were looked at yet"
SHOWN, LONGEST_RUN = 8, 80
"""Digits of a digest, and characters of a run's name, that are shown."""


def looks_table(looks: Sequence[Look]) -> str:
    """List the looks at each set of items, the oldest first, with what they add up to; times are local."""
    by_items = sorted(looks, key=lambda look: look.asked.items)  # stable: each stays in order
    sets = [list(group) for _, group in groupby(by_items, key=lambda look: look.asked.items)]
    sets.sort(key=lambda group: group[0].when)
    return "\n\n".join("\n".join(_of_one_set(group)) for group in sets) or NO_LOOKS


def _of_one_set(looks: Sequence[Look]) -> list[str]:
    kind = looks[0].asked.kind
    return [f"{kind} {one_line(looks[0].asked.items[:SHOWN])}", *map(_line, looks), *wear_sentences(looks)]


def wear_sentences(looks: Sequence[Look]) -> list[str]:
    """Say what looks at one set of items add up to."""
    promoted = sum(look.decision == "PROMOTE" for look in looks)
    count = f"{len(looks)} look{'' if len(looks) == 1 else 's'}, {promoted} PROMOTE"
    if looks[0].asked.kind == "test":
        chance = chance_of_error([look.level for look in looks])
        return [f"{count}; at least one false PROMOTE with a chance of up to {chance:.1%}"]
    found = optimism([look.excess for look in looks if look.excess is not None])
    said = [count]
    if found:
        shown = ": the test items are worn out, take fresh ones" if found.is_shown else ""
        said.append(f"the test items promise {found.mean:.3g} more, {found.low:.3g} at least (95 %){shown}")
    if len(looks) >= VAULT_LOOKS:
        said.append("the vault was looked at often: take fresh items for it")
    return said


def _line(look: Look) -> str:
    when = datetime.fromisoformat(look.when).astimezone().strftime("%Y-%m-%d %H:%M")
    gain = f"{look.gain.mean:+.3g} [{look.gain.low:.3g}, {look.gain.high:.3g}]" if look.gain else "-"
    decision = look.decision or "cut short"
    run = one_line(look.run, LONGEST_RUN)
    return f"  {look.number:>4}  {when}  {run:24}  level {look.level:<7.3g}  {decision:12}  {gain}"
