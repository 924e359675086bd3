"""A folder of tasks with groups of two levels, as leaderboards have them."""

from pathlib import Path

from tests.support.tiny_world import TASKS, write_task

CHOOSE = TASKS["choose"]
HARD = CHOOSE + "process_docs: !function helpers.odd\n"
HELPERS = "def odd(docs):\n    return docs.select(range(1, len(docs), 3))\n"
LETTERS = CHOOSE.replace("doc_to_choice: choices", 'doc_to_choice: ["none", "a", "b"]')


def write_groups(folder: Path, weight_by_size: bool) -> Path:
    """Write exam (sciences and letters), sciences (easy and hard), and both, which aggregates nothing."""
    write_task(folder, "easy", CHOOSE + "tag: sciences_tasks\n")
    write_task(folder, "hard", HARD + "tag: sciences_tasks\n")
    write_task(folder, "letters", LETTERS)
    (folder / "helpers.py").write_text(HELPERS)
    aggregate = f"aggregate_metric_list: [{{metric: acc, weight_by_size: {str(weight_by_size).lower()}}}]\n"
    (folder / "exam.yaml").write_text(f"group: exam\ntask: [sciences, letters]\n{aggregate}")
    (folder / "sciences.yaml").write_text(f"group: sciences\ntask: [sciences_tasks]\n{aggregate}")
    (folder / "both.yaml").write_text("group: both\ntask: [exam, spell]\n")
    return folder
