"""Every rule takes what it says, and every checkpoint's fate has a reason."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.base.records.record import FileDigest
from tasks.base.records.selection import FarCheckpoint
from tasks.base.records.training_run import Checkpoint, LeftOut, TrainingRun
from tasks.parameters.selection import SelectParams
from tasks.select_checkpoints import select_checkpoints
from tasks.trajectory.selection import choose


def checkpoint(step: int, loss: float | None = None, weights: str | None = None) -> Checkpoint:
    files = (FileDigest(name="model.safetensors", size=1, sha256=weights or str(step)),)
    metrics = {} if loss is None else {"eval_loss": loss}
    return Checkpoint(name=f"checkpoint-{step}", step=step, source="s", metrics=metrics, files=files)


def run_of(*checkpoints: Checkpoint) -> TrainingRun:
    return TrainingRun(name="r", source="runs/r", checkpoints=checkpoints, left_out=())


LOSSES = {100: 0.9, 200: 0.3, 300: 0.5, 400: 0.2, 500: 0.4}
RUN = run_of(*(checkpoint(step, loss) for step, loss in LOSSES.items()))


@pytest.mark.parametrize(
    ("params", "steps"),
    [
        (SelectParams(rule="last_k", k=2), [400, 500]),
        (SelectParams(rule="last_k", k=9), [100, 200, 300, 400, 500]),
        (SelectParams(rule="top_k", k=3), [200, 400, 500]),
        (SelectParams(rule="top_k", k=2, mode="max"), [100, 300]),
        (SelectParams(rule="spaced", k=3, fraction=1.0), [100, 300, 500]),
        (SelectParams(rule="spaced", k=2, fraction=0.5), [300, 500]),
        (SelectParams(rule="steps", steps=(500, 100)), [100, 500]),
    ],
)
def test_rules(params: SelectParams, steps: list[int]) -> None:
    selection = choose(params, RUN)
    assert [c.step for c in selection.chosen] == steps
    assert len(selection.left_out) == 5 - len(steps)
    assert all(left.reason for left in selection.left_out)


@given(
    steps=st.sets(st.integers(1, 10_000), min_size=2, max_size=40),
    k=st.integers(2, 12),
    fraction=st.floats(0.01, 1.0),
)
def test_spaced_takes_at_most_k_of_the_window_with_both_ends(
    steps: set[int], k: int, fraction: float
) -> None:
    run = run_of(*(checkpoint(step) for step in steps))
    window = [step for step in sorted(steps) if step >= max(steps) * (1 - fraction)]
    try:
        chosen = [c.step for c in choose(SelectParams(rule="spaced", k=k, fraction=fraction), run).chosen]
    except BadInput:
        assert len(window) < 2
        return
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= k
    assert chosen[0] == window[0]
    assert chosen[-1] == window[-1]


def test_best_single_is_over_the_whole_run_and_absent_without_the_metric() -> None:
    selection = choose(SelectParams(rule="last_k", k=2), RUN)
    assert selection.best is not None
    assert selection.best.step == 400
    assert selection.last.step == 500
    silent = run_of(checkpoint(1), checkpoint(2))
    assert choose(SelectParams(), silent).best is None


def test_the_same_weights_twice_count_once() -> None:
    run = run_of(checkpoint(1, weights="a"), checkpoint(2, weights="b"), checkpoint(3, weights="a"))
    selection = choose(SelectParams(k=3), run)
    assert [c.step for c in selection.chosen] == [1, 2]
    assert selection.left_out == (
        LeftOut(name="checkpoint-3", reason="holds the same weights as checkpoint-1"),
    )


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (SelectParams(k=1), r"nothing to merge: select.rule=last_k takes 1 checkpoint of runs/r"),
        (SelectParams(rule="steps", steps=(100, 7)), "no usable checkpoint at step 7; there are 100, 200"),
        (SelectParams(rule="steps"), "nothing to merge"),
        (SelectParams(rule="top_k", metric="eval_f1"), "select.metric: eval_f1 was not logged.*eval_loss"),
    ],
)
def test_what_cannot_be_selected_says_why(params: SelectParams, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        choose(params, RUN)


def test_one_checkpoint_says_what_removed_the_others() -> None:
    run = RUN.model_copy(
        update={
            "checkpoints": RUN.checkpoints[:1],
            "left_out": (LeftOut(name="checkpoint-9", reason="is late"),),
        }
    )
    with pytest.raises(BadInput, match="checkpoint-9: is late"):
        choose(SelectParams(), run)


def test_the_trajectory_is_published_for_plots(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RUN.write(tmp_path / "run" / "run.json")
    selection = select_checkpoints(SelectParams(k=2), tmp_path)
    rows = list(csv.DictReader((tmp_path / "selection" / "trajectory.csv").open()))
    assert [(int(r["step"]), float(r["eval_loss"])) for r in rows] == list(LOSSES.items())
    assert [r["selected"] for r in rows] == ["0", "0", "0", "1", "1"]
    assert select_checkpoints(SelectParams(k=2), tmp_path) == selection


@pytest.mark.parametrize(
    ("params", "steps"),
    [
        (SelectParams(), [100, 300, 400, 500]),
        (SelectParams(far="keep"), [100, 200, 300, 400, 500]),
        (SelectParams(rule="steps", steps=(100, 200, 300)), [100, 200, 300]),
    ],
)
def test_what_lies_far_is_left_out_unless_it_is_wanted(params: SelectParams, steps: list[int]) -> None:
    far = FarCheckpoint(step=200, times=4.7)
    selection = choose(params, RUN, lambda chosen: [far] if 200 in [c.step for c in chosen] else [])
    assert [c.step for c in selection.chosen] == steps
    assert selection.plan is not None
    assert 200 not in selection.plan.window
    assert "Step 200 lies 4.7 times as far from the others" in selection.plan.sentence
    reasons = {left.name: left.reason for left in selection.left_out}
    assert (200 in steps) or reasons["checkpoint-200"].startswith("lies 4.7 times as far")


def test_another_comes_in_the_place_of_one_that_lies_far_unless_it_does_too() -> None:
    def far(*steps: int) -> Callable[[Sequence[Checkpoint]], list[FarCheckpoint]]:
        return lambda chosen: [FarCheckpoint(step=c.step, times=4.7) for c in chosen if c.step in steps]

    assert [c.step for c in choose(SelectParams(k=3), RUN, far(400)).chosen] == [200, 300, 500]
    selection = choose(SelectParams(k=3), RUN, far(200, 400))
    assert [c.step for c in selection.chosen] == [300, 500]
    reasons = {left.name: left.reason for left in selection.left_out}
    assert reasons["checkpoint-100"] == "is not among the newest 3"
    assert {name for name, reason in reasons.items() if "as far" in reason} == {
        "checkpoint-200",
        "checkpoint-400",
    }
