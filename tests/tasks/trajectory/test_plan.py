"""A plan says what kind of run it is, and what to merge of it, before anything is merged."""

import json
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.records.selection import RunPlan
from tasks.parameters.selection import SelectParams
from tasks.reporting.plan_figure import draw_plan
from tasks.trajectory.learning_rate import Rate
from tasks.trajectory.plan import plan_run
from tasks.trajectory.plan_directory import plan_directory

FIVE = SelectParams(k=5)
STEPS = list(range(100, 1100, 100))


def stable_then_decay(stable: int, end: int = 1000) -> list[Rate]:
    """Warm up for 50 steps, stay, and decay to 0 at the end."""
    return [
        Rate(step, min(step / 50, 1.0, (end - step) / max(end - stable, 1)))
        for step in range(10, end + 1, 10)
    ]


def constant(end: int = 1000) -> list[Rate]:
    return [Rate(step, min(step / 50, 1.0)) for step in range(10, end + 1, 10)]


def test_a_constant_rate_is_averaged_over_the_newest() -> None:
    plan = plan_run(STEPS, constant(), FIVE)
    assert (plan.schedule, plan.window) == ("constant", (600, 700, 800, 900, 1000))
    assert plan.weights == pytest.approx((0, 0.1, 0.2, 0.3, 0.4))
    assert plan.sentence == (
        "The learning rate is constant since step 50: averaging should help; window 600 to 1000, 5 checkpoints."
    )


def test_checkpoints_of_the_warm_up_are_not_taken() -> None:
    rates = [Rate(step, min(step / 850, 1.0)) for step in range(10, 1010, 10)]
    assert plan_run(STEPS, rates, FIVE).window == (800, 900, 1000)


def test_a_decayed_rate_keeps_the_last_and_names_what_lies_before() -> None:
    plan = plan_run(STEPS, stable_then_decay(700), FIVE)
    assert (plan.schedule, plan.window, plan.weights) == ("decayed", (1000,), (1.0,))
    assert plan.before_decay == (300, 400, 500, 600, 700)
    assert "a merge is not expected to beat the last checkpoint" in plan.sentence
    assert "select.steps: [300, 400, 500, 600, 700]" in plan.sentence
    linear = plan_run(STEPS, stable_then_decay(50), FIVE)
    assert (linear.schedule, linear.before_decay) == ("decayed", ())
    assert linear.sentence.endswith("keep a constant rate next time.")


def test_a_rate_half_way_down_has_weights_towards_the_end() -> None:
    plan = plan_run(STEPS, [Rate(step, 1 - 0.6 * step / 1000) for step in range(10, 1010, 10)], FIVE)
    assert plan.schedule == "decaying"
    assert plan.weights[-1] > 0.4
    assert "of its peak" in plan.sentence


@pytest.mark.parametrize(
    ("steps", "told"),
    [(STEPS, "no learning rates"), ([700], "one checkpoint"), ([300, 100, 200], "window 100 to 300")],
)
def test_without_a_log_it_says_so(steps: list[int], told: str) -> None:
    plan = plan_run(steps, [], FIVE)
    assert plan.schedule == "unknown"
    assert told in plan.sentence


def test_uneven_steps_have_weights_by_their_length() -> None:
    plan = plan_run([100, 200, 1000], constant(), FIVE)
    mean = 1300 / 3
    squares = sum((step - mean) ** 2 for step in (100, 200, 1000))
    trend = [1 / 3 + (1000 - mean) * (step - mean) / squares / 2 for step in (100, 200, 1000)]
    assert plan.weights == pytest.approx(trend, abs=1e-4)


def test_training_that_was_resumed_is_planned_by_what_was_logged_last(tmp_path: Path) -> None:
    """It went back to step 100 with another max_steps, and then ran at a constant rate."""
    log = [{"step": s, "learning_rate": 1 - s / 200} for s in range(10, 200, 10)]
    log += [{"step": s, "learning_rate": 0.9} for s in range(110, 410, 10)]
    for step, max_steps in ((100, 200), (300, 400), (400, 900)):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        (place / "trainer_state.json").write_text(json.dumps({"log_history": log, "max_steps": max_steps}))
    plan = plan_directory(tmp_path, FIVE)
    assert (plan.schedule, plan.window) == ("constant", (300, 400))


def test_a_directory_is_planned_by_its_newest_log(tmp_path: Path) -> None:
    for step in (100, 200):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        log = [{"step": s, "learning_rate": 0.1} for s in range(10, step + 1, 10)]
        (place / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    plan = plan_directory(tmp_path, FIVE)
    assert (plan.schedule, plan.window, plan.rates[-1][0]) == ("constant", (100, 200), 200)
    with pytest.raises(BadInput, match="holds no checkpoint-N directory"):
        plan_directory(tmp_path / "checkpoint-100", FIVE)
    with pytest.raises(BadInput, match="cannot be read"):
        plan_directory(tmp_path / "none", FIVE)


@pytest.mark.parametrize(
    "plan",
    [
        plan_run(STEPS, constant(), FIVE),
        plan_run(STEPS, stable_then_decay(700), FIVE),
        plan_run(STEPS, [], FIVE),
    ],
    ids=["constant", "decayed", "unknown"],
)
def test_it_is_drawn(tmp_path: Path, plan: RunPlan) -> None:
    draw_plan(tmp_path / "plan.png", plan)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="no picture can be written there"):
        draw_plan(tmp_path / "none" / "plan.png", plan)
