"""How often the gate errs: the table of docs/reference/verdict.md, `python -m tests.benchmarks.simulate_verdict`.

Takes about fifteen minutes; seeds are fixed.
"""

from collections.abc import Iterator

import numpy as np

from tests.support.simulated_verdicts import (
    FAMILIES,
    drift,
    equals,
    judged,
    nights,
    over_a_far_champion,
    passing,
    promoted,
    right_or_wrong,
    ruled_out,
    tails,
)

DRAWS, RUNS = 4000, 600
SIX = {f"m{number}": right_or_wrong(0.1) for number in range(6)}
LOSS = {"m0": right_or_wrong(0.1, gain=-0.02)}


def rows() -> Iterator[tuple[str, str]]:
    """Yield what was simulated, and what came out."""
    for name, draw in FAMILIES.items():
        for items in (200, 1500):
            found = equals(draw, items, DRAWS)
            yield f"{name}, n = {items}: coverage", f"{found.coverage:.3f}"
            yield f"{name}, n = {items}: equals promoted", percent(found.promoted)
    for sigma in (1.5, 2.0, 2.5):
        share = equals(tails(sigma), 50, DRAWS).promoted
        yield f"log-normal tails of {sigma}, n = 50: equals promoted", percent(share)
    for items in (200, 1500):
        share = equals(farther_worse, items, DRAWS).promoted
        yield f"rarely very far worse, n = {items}: equals promoted", percent(share)
    for items in (200, 1500):
        yield f"a metric worse by 2 points, n = {items}: passes", percent(passing(DRAWS, items, LOSS))
    for items in (200, 500, 1500):
        yield f"six harmless metrics, n = {items}: blocked", percent(1 - passing(1000, items, SIX))
    worse = SIX | {"m0": right_or_wrong(0.1, gain=-0.03)}
    yield "six metrics, one worse by 3 points, n = 1500: passes", percent(passing(1000, 1500, worse))
    for margin in (0.01, 0.02):
        share = passing(1000, 1500, {"m0": SIX["m0"]}, margin=margin)
        yield f"one harmless metric, margin {margin}, n = 1500: blocked", percent(1 - share)
    for items in (200, 500, 1500):
        share = promoted(DRAWS, items, right_or_wrong(0.1, gain=0.02))
        yield f"a true gain of 2 points, n = {items}: promoted", percent(share)
    yield "champion far, best near, n = 1500: promoted", percent(over_a_far_champion(DRAWS, 1500))
    for items in (50, 100):
        yield f"a true gain of 1 point, n = {items}: ruled out", percent(ruled_out(DRAWS, items))
    for held_to, reference in (("the champion", False), ("the reference too", True)):
        lost = 100 * drift(40, 30, 1500, reference)
        yield f"30 nights of -0.8 points each, held to {held_to}", f"{lost:+.1f} points"
    for what, more in (
        ("30 nights of equals", {"count": 30}),
        ("90 nights of equals", {"count": 90}),
        ("90 nights of challengers worse by 0.5 points", {"count": 90, "below": 0.5}),
        ("90 nights of challengers from N(0, 1 point)", {"count": 90, "spread": 1.0}),
    ):
        for with_vault in (False, True):
            found = nights(RUNS, items=1500, vault=with_vault, **more)
            yield (
                f"{what}, {'vault' if with_vault else 'no vault'}: some promoted",
                percent(found.any_promotion),
            )
            yield "  promotions, true quality, vault looks", ", ".join(f"{value:.2f}" for value in found[1:])
    for name, gains in (("3 items", np.array([1.0, 0.5, 0.9])), ("one gain for all", np.ones(200))):
        yield f"{name}: verdict", judged({"last": {"primary": gains}}).verdict.decision


def farther_worse(rng: np.random.Generator, items: int) -> np.ndarray:
    """Draw gains with a longer tail of losses than any promise is made for."""
    return np.exp(1.5**2 / 2) - np.exp(rng.normal(0, 1.5, items))


def percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    for what, found in rows():
        print(f"{what:<60} {found}", flush=True)
