"""Which gains a set of test items can find, as `loreline power` prints them."""

from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.power import Design, items_for, smallest_gain
from tasks.verdict.wear import level_at

LOOKS = (1, 10, 100)


def power_table(design: Design, params: EvaluateParams, gain: float | None) -> str:
    """Say what is found four times in five at several looks, and how many items find `gain`."""
    vault = _vault(design, params)
    together = f", in {design.clusters} clusters" if design.clusters < design.items else ""
    lines = [
        f"{design.items} items{together}; the gain of an item spreads by {design.spread:.3g}, "
        f"the mean's standard error is {design.error:.3g}"
    ]
    if vault:
        lines.append(f"a promotion is confirmed on {vault.items} more items, taken to spread as these do")
    lines.append(f"{'look':>6}  {'level':>8}  found four times in five")
    for look in LOOKS:
        found = smallest_gain(design, look, params.spending, vault)
        lines.append(f"{look:>6}  {level_at(look, params.spending):>8.3%}  gains of {found:.3g} or more")
    if gain is not None:
        needed = [items_for(gain, design, look, params.spending, vault) for look in LOOKS]
        counts = ", ".join(f"{count} at look {look}" for look, count in zip(LOOKS, needed, strict=True))
        lines.append(f"a gain of {gain:.3g} takes {counts} (items)")
    return "\n".join(lines)


def _vault(design: Design, params: EvaluateParams) -> Design | None:
    """Return the vault's design: its share beside the rest, or as many items where it has own tasks."""
    if params.vault:
        return design
    share = params.vault_share
    return design.sized(max(2, round(design.items * share / (1 - share)))) if share else None
