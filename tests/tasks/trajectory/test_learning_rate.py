"""What a log says of the learning rate, whatever trainer wrote it."""

import math
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from tasks.trajectory.learning_rate import MOST_RATES, Rate, logged_rates, schedule_of


def state(*entries: Any) -> dict[str, Any]:
    return {"log_history": list(entries)}


def trained(name: str, steps: int = 500, warmup: int = 50, **more: Any) -> list[Rate]:
    """Return the rates of transformers' own schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=more)
    rates = []
    for step in range(1, steps + 1):
        optimizer.step()
        scheduler.step()
        rates.append(Rate(step, scheduler.get_last_lr()[0]))
    return rates


@pytest.mark.parametrize(
    ("name", "more", "kind"),
    [
        ("constant", {}, "constant"),
        ("constant_with_warmup", {}, "constant"),
        ("linear", {}, "decayed"),
        ("cosine", {}, "decayed"),
        ("cosine_with_min_lr", {"min_lr_rate": 0.4}, "decaying"),
        ("polynomial", {"lr_end": 1e-6}, "decayed"),
        ("warmup_stable_decay", {"num_decay_steps": 100}, "decayed"),
    ],
)
def test_the_schedulers_of_transformers_are_told_apart(name: str, more: dict[str, Any], kind: str) -> None:
    assert schedule_of(trained(name, **more)).kind == kind


def test_a_plateau_has_a_beginning_and_an_end() -> None:
    found = schedule_of(trained("warmup_stable_decay", num_decay_steps=100))
    assert found.peak == pytest.approx(3e-4)
    assert (found.since, found.until) == pytest.approx((45, 410), abs=30)


def test_what_is_no_rate_is_left_out() -> None:
    entries = [
        {"step": 3, "learning_rate": 0.1},
        {"step": 1, "learning_rate": 0.3},
        {"step": 2, "learning_rate": math.nan},
        {"step": 4, "learning_rate": "0.1"},
        {"step": 5, "loss": 1.0},
        {"step": 6, "learning_rate": -1},
        {"step": 7, "learning_rate": 10**400},
        {"step": "8", "learning_rate": 0.1},
        [9, 0.1],
    ]
    assert logged_rates(state(*entries)) == [Rate(1, 0.3), Rate(3, 0.1)]


def test_training_that_was_resumed_logs_a_step_twice() -> None:
    entries = [
        {"step": step, "learning_rate": rate} for step, rate in ((1, 0.1), (2, 0.2), (1, 0.3), (2, 0.4))
    ]
    assert logged_rates(state(*entries)) == [Rate(1, 0.3), Rate(2, 0.4)]


def test_a_long_log_is_thinned_and_keeps_its_ends() -> None:
    found = logged_rates(state(*({"step": step, "learning_rate": 1 / step} for step in range(1, 10_001))))
    assert len(found) == MOST_RATES
    assert (found[0].step, found[-1].step) == (1, 10_000)


@pytest.mark.parametrize(
    "log", [{}, {"log_history": None}, {"log_history": 3}, state({"step": 1, "learning_rate": 0.1})]
)
def test_without_rates_the_schedule_is_unknown(log: dict[str, Any]) -> None:
    assert schedule_of(logged_rates(log)).kind == "unknown"
