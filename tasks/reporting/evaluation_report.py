"""What people look at of an evaluation: its figures, and the report."""

from pathlib import Path

from tasks.reporting.deviation_figure import draw_deviation
from tasks.reporting.figures import draw_gains, draw_trajectory
from tasks.reporting.html_report import ReportRecords, html_report
from tasks.reporting.lore_figure import draw_lore
from tasks.reporting.lore_summary import summarise


def write_report(out: Path, records: ReportRecords) -> None:
    """Write figures/ and report.html into a directory."""
    run, selection, merge, evaluation = records
    (out / "figures").mkdir()
    draw_trajectory(out / "figures" / "trajectory.png", run.checkpoints, selection)
    draw_gains(out / "figures" / "gains.png", evaluation)
    if merge.deviations:
        labels, has_base = [source.label for source in merge.inputs], "base" in merge.parameters
        draw_deviation(out / "figures" / "deviation.png", labels, merge.deviations, has_base)
    if (found := summarise(merge)) and found.matrices:
        draw_lore(out / "figures" / "lore.png", merge)
    report = html_report(records)
    (out / "report.html").write_text(report, encoding="utf-8")
