"""The findings of `loreline doctor` as text, with a remedy for each that is not ok."""

from collections.abc import Sequence
from itertools import groupby
from typing import get_args

from rich.text import Text

from tasks.base.errors import one_line
from tasks.doctor.finding import Area, Finding

MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}
STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}
WIDEST = 24


def findings_text(findings: Sequence[Finding]) -> Text:
    """Lay findings out by area, aligned, a remedy on a line of its own; the last line counts them."""
    areas = get_args(Area)
    ordered = sorted(findings, key=lambda finding: areas.index(finding.area))  # stable
    width = min(max((len(finding.subject) for finding in findings), default=0), WIDEST)
    text = Text()
    for area, group in groupby(ordered, key=lambda finding: finding.area):
        text.append(f"{area}\n", style="bold")
        for finding in group:
            text.append(f"  {MARKS[finding.level]} ", style=STYLES[finding.level])
            text.append(f"{one_line(finding.subject):{width}}  {one_line(finding.found)}\n")
            if finding.remedy:
                text.append(f"    → {one_line(finding.remedy)}\n")
    return text.append(f"\n{_summary(findings)}")


def _summary(findings: Sequence[Finding]) -> str:
    count = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    parts = [
        f"{count[level]} {level}{'' if count[level] == 1 else 's'}"
        for level in ("problem", "warning")
        if count[level]
    ]
    return f"{', '.join(parts) or 'All is well'}; {count['ok']} ok."
