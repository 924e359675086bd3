"""What is promised to be found is found, as often as promised, in simulated comparisons."""

import numpy as np
import pytest
from scipy import stats

from tasks.verdict.comparison import Pairs
from tasks.verdict.intervals import LEVEL, POWER
from tasks.verdict.power import Design, design_of, guessed_design, items_for, power_of, smallest_gain
from tasks.verdict.wear import level_at


def share_shown(gain: float, design: Design, level: float, draws: int = 4000) -> float:
    """Simulate cluster means, and count how often Student's lower bound is above 0."""
    noise = np.random.default_rng(0).normal(size=(draws, design.clusters))
    means = gain + noise * design.error * design.clusters**0.5
    return float((stats.ttest_1samp(means, 0, axis=1, alternative="greater").pvalue < level).mean())


@pytest.mark.parametrize(
    "design",
    [Design(1500, 0.3, 1500), Design(200, 1.0, 200), Design(300, 2.0, 30, inflation=1.9), Design(40, 1.0, 8)],
)
@pytest.mark.parametrize("look", [1, 10])
def test_the_smallest_gain_is_found_four_times_in_five(design: Design, look: int) -> None:
    gain = smallest_gain(design, look, "alpha")
    assert share_shown(gain, design, level_at(look, "alpha")) == pytest.approx(POWER, abs=0.02)


def test_on_many_items_it_is_nearly_three_standard_errors() -> None:
    design = Design(10_000, 1.0, 10_000)
    assert smallest_gain(design, 1, "none") == pytest.approx(2.8 * design.error, rel=0.01)
    assert smallest_gain(design, 100, "none") == smallest_gain(design, 1, "none")
    assert smallest_gain(design, 100, "alpha") > 1.5 * smallest_gain(design, 1, "alpha")


def test_clusters_cost_items() -> None:
    alone = Design(1500, 0.3, 1500)
    together = alone._replace(clusters=150, inflation=1.9)
    assert smallest_gain(together, 1, "none") == pytest.approx(
        1.9**0.5 * smallest_gain(alone, 1, "none"), rel=0.01
    )


def test_a_vault_costs_little() -> None:
    design = Design(1500, 0.3, 1500)
    alone, confirmed = smallest_gain(design, 1, "none"), smallest_gain(design, 1, "none", design)
    assert alone < confirmed < 1.1 * alone
    both = power_of(confirmed, design, LEVEL) * power_of(confirmed, design, 0.1)
    assert both == pytest.approx(POWER, abs=1e-4)


@pytest.mark.parametrize("vault", [None, Design(500, 0.3, 500)])
def test_so_many_items_find_the_gain_and_hardly_fewer_do(vault: Design | None) -> None:
    design = Design(1500, 0.3, 1500)
    gain = 0.3 * smallest_gain(design, 1, "none", vault)
    items = items_for(gain, design, 1, "none", vault)
    assert items / 1500 == pytest.approx(1 / 0.3**2, rel=0.02)
    beside = vault and vault.sized(round(500 * items / 1500))
    assert smallest_gain(design.sized(items), 1, "none", beside) <= gain * 1.001
    assert items_for(10 * gain, design, 1, "none", vault) < 1500


@pytest.mark.parametrize("clusters", [(), tuple(str(i // 10) for i in range(600))])
def test_a_measured_pair_gives_its_own_standard_error_back(clusters: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    gains = random.normal(size=600) + np.repeat(random.normal(size=60), 10)
    design = design_of(Pairs(gains, clusters, ()))
    assert design.error == pytest.approx(Pairs(gains, clusters, ()).estimate.error)
    assert design.clusters == (60 if clusters else 600)
    assert design.spread == pytest.approx(gains.std(ddof=1))


def test_guesses_follow_the_design_effect() -> None:
    assert guessed_design(1000, None, 0.09, 1, 0.0) == Design(1000, 0.3, 1000, 1.0)
    assert guessed_design(1000, 0.5, 0.09, 10, 0.1) == Design(1000, 0.5, 100, 1.9)
