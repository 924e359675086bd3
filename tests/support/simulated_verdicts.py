"""Verdicts on item values drawn from known distributions: how often the gate errs, through evaluate_results."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.score import EvaluatedModel
from tasks.evaluation.results import TaskResult
from tasks.parameters.evaluation import EvaluateParams
from tasks.verdict.confirmation import confirmed
from tasks.verdict.gate import evaluate_results
from tasks.verdict.wear import CONFIRMING

Gains = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Gains]
"""One gain per item, whose expectation is zero."""

CLUSTER = 10
"""Items that belong together, in the families with clusters."""
ICC = 0.1
"""Correlation of two items of a cluster."""
LUCK = 1 - 0.8**0.5
"""Share of the items that a model answers by luck."""


def tails(sigma: float) -> Draw:
    """Return differences of two log-normal numbers, as between the likelihoods of two models."""

    def draw(rng: np.random.Generator, items: int) -> Gains:
        one, other = np.exp(rng.normal(0, sigma, (2, items)))
        return one - other

    return draw


def mostly_zero(rng: np.random.Generator, items: int) -> Gains:
    """Draw gains of which 85 % are zero and the rest have long tails."""
    return tails(1.5)(rng, items) * (rng.random(items) > 0.85)


def skewed(sign: int) -> Draw:
    """Return gains with one long tail: the merge mostly a little better and rarely far worse, or the reverse."""
    return lambda rng, items: sign * (np.exp(rng.normal(0, 1, items)) - np.exp(0.5))


def right_or_wrong(discordant: float, gain: float = 0.0) -> Draw:
    """Return gains of a 0/1 metric: the share of items that differ, and the expected gain."""

    def draw(rng: np.random.Generator, items: int) -> Gains:
        where = rng.random(items)
        return np.where(where < (discordant + gain) / 2, 1.0, np.where(where < discordant, -1.0, 0.0))

    return draw


def clustered(rng: np.random.Generator, items: int) -> Gains:
    """Draw normal gains that share a part with their cluster."""
    own, shared = rng.normal(size=items), np.repeat(rng.normal(size=-(-items // CLUSTER)), CLUSTER)[:items]
    return np.sqrt(1 - ICC) * own + np.sqrt(ICC) * shared


def clustered_answers(rng: np.random.Generator, items: int) -> Gains:
    """Draw gains of a 0/1 metric, 20 % discordant, that go the same way in a cluster half of the time."""
    shared = np.repeat(rng.choice([-1.0, 1.0], size=-(-items // CLUSTER)), CLUSTER)[:items]
    own = rng.choice([-1.0, 1.0], size=items)
    return np.where(rng.random(items) < 0.5, shared, own) * (rng.random(items) < 0.2)


FAMILIES: dict[str, Draw] = {
    "log-normal tails": tails(1.5),
    "heavier tails": tails(2.0),
    "85 % zeros": mostly_zero,
    "rarely far worse": skewed(-1),
    "rarely far better": skewed(1),
    "0/1, 10 % discordant": right_or_wrong(0.1),
    "clusters of 10": clustered,
    "0/1, clusters of 10": clustered_answers,
}
CLUSTERED = (clustered, clustered_answers)


def judged(gains: Mapping[str, Mapping[str, Gains]], in_clusters: bool = False, **chosen: Any) -> Evaluation:
    """Judge a merge by its gains over every role on every metric; `primary` decides."""
    metrics = list(next(iter(gains.values())))
    items = next(iter(gains.values()))[metrics[0]].size
    zeros = dict.fromkeys(metrics, np.zeros(items))
    lost = {role: {name: -gain for name, gain in of.items()} for role, of in gains.items()}
    results = {role: _results(of, items, in_clusters) for role, of in {"merge": zeros, **lost}.items()}
    models = [EvaluatedModel(role=role, label=role, digest=role) for role in results]
    params = EvaluateParams(**{"tasks": ("t",), "primary": "t/primary", **chosen})
    return evaluate_results(models, results, params)


def _results(values: Mapping[str, Gains], items: int, in_clusters: bool) -> dict[str, TaskResult]:
    # not validated: most of the time would go into checking numbers that were drawn here
    result = TaskResult.model_construct(
        task="t",
        items=_names(items, 1),
        values={name: tuple(column.tolist()) for name, column in values.items()},
        higher_is_better=dict.fromkeys(values, True),
        clusters=_names(items, CLUSTER) if in_clusters else (),
        weights=(),
    )
    return {"t": result}


@cache
def _names(items: int, together: int) -> tuple[str, ...]:
    return tuple(str(item // together) for item in range(items))


class Honesty(NamedTuple):
    """Of merges that are exactly as good: how often the interval holds zero, and how often they are promoted."""

    coverage: float
    promoted: float


def equals(draw: Draw, items: int, draws: int, seed: int = 0) -> Honesty:
    """Judge merges that are exactly as good as the last checkpoint."""
    rng = np.random.default_rng(seed)
    found = [
        judged({"last": {"primary": draw(rng, items)}}, in_clusters=draw in CLUSTERED) for _ in range(draws)
    ]
    gains = [evaluation.decisive.gain for evaluation in found]
    return Honesty(
        coverage=sum(gain.low <= 0 <= gain.high for gain in gains) / draws,
        promoted=sum(evaluation.verdict.decision == "PROMOTE" for evaluation in found) / draws,
    )


def promoted(
    draws: int, items: int, primary: Draw, secondary: Mapping[str, Draw] = {}, seed: int = 0, **chosen: Any
) -> float:
    """Return how often a merge is promoted over the last checkpoint, with such other metrics."""
    rng, metrics = np.random.default_rng(seed), {"primary": primary, **secondary}
    decisions = [
        judged(
            {"last": {name: draw(rng, items) for name, draw in metrics.items()}}, **chosen
        ).verdict.decision
        for _ in range(draws)
    ]
    return decisions.count("PROMOTE") / draws


def passing(draws: int, items: int, secondary: Mapping[str, Draw], seed: int = 0, **chosen: Any) -> float:
    """Return how often merges that are clearly better pass with such other metrics."""
    return promoted(draws, items, right_or_wrong(0.5, gain=0.49), secondary, seed, **chosen)


def over_a_far_champion(draws: int, items: int, seed: int = 0) -> float:
    """Return how often a merge is promoted that is equal to the champion and 0.01 better than the best.

    The champion's values lie far from the merge's (spread 0.6 of the gains), the best's near (0.15).
    """
    rng = np.random.default_rng(seed)
    decisions = [
        judged(
            {
                "champion": {"primary": rng.normal(0, 0.6, items)},
                "best": {"primary": rng.normal(0.01, 0.15, items)},
            }
        ).verdict.decision
        for _ in range(draws)
    ]
    return decisions.count("PROMOTE") / draws


def ruled_out(draws: int, items: int, seed: int = 0) -> float:
    """Return how often a true gain of one point, 5 % discordant, is said to be ruled out."""
    rng, draw = np.random.default_rng(seed), right_or_wrong(0.05, gain=0.01)
    found = [judged({"last": {"primary": draw(rng, items)}}).verdict.opponents[0] for _ in range(draws)]
    return sum(standing.rule == "gain_ruled_out" for standing in found) / draws


def drift(runs: int, nights: int, items: int, with_reference: bool, seed: int = 0) -> float:
    """Return the mean loss on another metric after nights of challengers that lose 0.8 points on it each.

    Each is far better on the deciding metric, and loses against the champion of its night.
    """
    rng, better = np.random.default_rng(seed), right_or_wrong(0.5, gain=0.49)
    lost = []
    for _ in range(runs):
        total = 0.0
        for _ in range(nights):
            versus = {"champion": -0.008, **({"reference": total - 0.008} if with_reference else {})}
            gains = {
                role: {"primary": better(rng, items), "other": right_or_wrong(0.1, gain)(rng, items)}
                for role, gain in versus.items()
            }
            total -= 0.008 * (judged(gains).verdict.decision == "PROMOTE")
        lost.append(total)
    return float(np.mean(lost))


class Nights(NamedTuple):
    """What became of many runs of nights on one test set."""

    any_promotion: float
    """Share of the runs in which something was promoted."""
    promotions: float
    """Per run."""
    quality: float
    """Of the last champion: how much better than the first it truly is, in points."""
    vault_looks: float
    """Per run."""


def nights(
    runs: int,
    count: int,
    items: int,
    spread: float = 0.0,
    below: float = 0.0,
    vault: bool = True,
    seed: int = 0,
) -> Nights:
    """Judge challengers night by night on the same items, 10 % discordant; a promoted one becomes champion.

    Each is truly better than the first champion by a number of points from N(−below, spread). All models find
    the same items hard, but for some luck of their own; a champion's luck stays with the items, so that one
    test set misleads every night in the same direction.
    """
    rng = np.random.default_rng(seed)
    found = [_one_run(rng, count, items, spread, below, vault) for _ in range(runs)]
    promoted, quality, looks = (np.array(column) for column in zip(*found, strict=True))
    return Nights(
        float((promoted > 0).mean()), float(promoted.mean()), float(quality.mean()), float(looks.mean())
    )


def _one_run(
    rng: np.random.Generator, count: int, items: int, spread: float, below: float, vault: bool
) -> tuple[int, float, int]:
    hardness = rng.random((2, items))  # of the test items, and the vault's

    def answers(quality: float) -> Gains:
        """Two models differ on one item in ten: (1 − (1 − LUCK)²)/2."""
        own = np.where(rng.random((2, items)) < LUCK, rng.random((2, items)), hardness)
        return (own < 0.5 + quality / 100).astype(float)

    quality, promotions, looks = 0.0, 0, 0
    champion = answers(quality)
    for _ in range(count):
        own = quality - below if spread == 0 else rng.normal(-below, spread)
        challenger = answers(own)
        gains = challenger - champion
        evaluation = judged({"champion": {"primary": gains[0]}})
        if evaluation.verdict.decision == "PROMOTE" and vault:
            looks += 1
            evaluation = held_to_vault(evaluation, gains[1])
        if evaluation.verdict.decision == "PROMOTE":
            champion, quality, promotions = challenger, own, promotions + 1
    return promotions, quality, looks


def held_to_vault(evaluation: Evaluation, gains: Gains) -> Evaluation:
    """Confirm an evaluation by gains over the champion on a vault's items."""
    results = {
        "merge": _results({"primary": np.zeros(gains.size)}, gains.size, False),
        "champion": _results({"primary": -gains}, gains.size, False),
    }
    params = EvaluateParams(tasks=("t",), primary="t/primary")
    return confirmed(evaluation, results, params, CONFIRMING, 1)
