"""What `loreline history` prints is one aligned line for each merged run."""

from datetime import datetime

from tasks.registry.history import MergedRun
from tasks.reporting.history_table import history_table
from tasks.reporting.unmerged_table import UnmergedRun, unmerged_table

FULL = MergedRun(
    when=datetime(2026, 3, 9, 4, 5).timestamp(),
    model="models:/demo/12",
    aliases=("challenger", "champion"),
    run="nightly",
    method="lore",
    verdict="PROMOTE",
    primary="sums/acc",
    merge=0.98764,
    against="best",
    weighed=0.9,
    tag="merge/nightly",
    revision="0123456789abcdef",
    push="done",
)
BARE = FULL.model_copy(
    update=dict.fromkeys(
        ("run", "method", "verdict", "primary", "merge", "against", "weighed", "tag", "revision", "push")
    )
    | {"aliases": (), "model": "models:/demo/2"}
)


def test_columns_are_aligned_and_missing_values_are_dashes() -> None:
    assert history_table([FULL, BARE]).splitlines() == [
        "when              run      method  verdict  metric     merge  against     version                                 tag            revision",
        "2026-03-09 04:05  nightly  lore    PROMOTE  sums/acc  0.9876  0.9 (best)  models:/demo/12 (challenger, champion)  merge/nightly  0123456789",
        "2026-03-09 04:05  -        -       -        -              -  -           models:/demo/2                          -              -",
    ]


def test_a_push_that_is_pending_is_seen() -> None:
    assert history_table([FULL.model_copy(update={"push": "pending"})]).endswith("0123456789, push pending")


def test_none_is_said() -> None:
    assert history_table([]) == "no merged run yet"


def test_a_pruned_merge_has_no_tag() -> None:
    assert "  pruned  " in history_table([FULL.model_copy(update={"pruned": True})]).splitlines()[1]


def test_runs_without_a_merge_are_lines_with_the_whole_reason() -> None:
    when, why = (
        datetime(2026, 3, 9, 4, 5).timestamp(),
        "checkpoint-300: no tokenizer, save it beside the weights; " * 3 + "end",
    )
    runs = [UnmergedRun(when, "runs/a", "refused", why), UnmergedRun(when, "runs/longer", "killed", "a\nb")]
    assert unmerged_table(runs).splitlines() == [
        "when              run          state    why",
        f"2026-03-09 04:05  runs/a       refused  {why}",
        "2026-03-09 04:05  runs/longer  killed   a\\nb",
    ]
    assert unmerged_table([]) == ""
