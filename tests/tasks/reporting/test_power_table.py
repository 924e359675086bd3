"""What the planner says is what the formulas say, in words and in time for the first night."""

import re

import pytest

from tasks.parameters.evaluation import EvaluateParams
from tasks.reporting.power_table import power_table
from tasks.verdict.power import Design, guessed_design, smallest_gain

PARAMS = EvaluateParams(tasks=("t",), primary="t/acc")


def found(text: str) -> list[float]:
    return [float(gain) for gain in re.findall(r"gains of ([\d.]+)", text)]


def test_without_spending_every_look_finds_the_same() -> None:
    design = Design(1500, 0.3, 1500)
    gains = found(power_table(design, PARAMS, None))
    assert len(set(gains)) == 1
    assert gains[0] == pytest.approx(smallest_gain(design, 1, "none"), rel=1e-2)


def test_spending_and_a_vault_cost_power() -> None:
    design = Design(1500, 0.3, 1500)
    plain = found(power_table(design, PARAMS, None))
    spent = found(power_table(design, PARAMS.model_copy(update={"spending": "alpha"}), None))
    assert spent[0] == plain[0] < spent[1] < spent[2]
    for vault in ({"vault_share": 0.5}, {"vault": ("v",)}):
        text = power_table(design, PARAMS.model_copy(update=vault), None)
        assert "confirmed on 1500 more items" in text
        assert plain[0] < found(text)[0] < 1.2 * plain[0]


def test_a_target_is_told_in_items() -> None:
    """Z = 2.8: at 10 % discordant, 1 point takes 0.1 · (2.8/0.01)² items."""
    text = power_table(guessed_design(1500, None, 0.1, 1, 0.0), PARAMS, 0.01)
    (items, *_) = re.findall(r"(\d+) at look", text)
    assert int(items) == pytest.approx(0.1 * (2.8 / 0.01) ** 2, rel=0.01)


def test_clusters_are_told() -> None:
    assert "1500 items, in 150 clusters" in power_table(guessed_design(1500, 0.3, 0, 10, 0.1), PARAMS, None)
