"""What a search on the select items gains on the test items, over what merge says, on the demo's runs.

study_search.py [--seeds 0 1 2 3 4] [--schedules constant linear]

Prints the table of docs/trajectory.md. Merges of the last eight checkpoints, 20 tried by each sampler, the guard as in
the stage; runs that are not there are trained first, as by study_trajectory.py.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tasks.parameters.search import SearchParams
from tasks.search.candidate import Candidate, as_it_stands
from tasks.search.drawn import draw_candidates
from tasks.search.greedy import greedy
from tasks.search.settings import is_read, merge_params
from tasks.search.surface import surface
from tasks.search.trials import Losses, Proposals, run_trials
from tests.benchmarks.measure import say, table
from tests.benchmarks.study_models import batches_of, item_losses
from tests.benchmarks.study_trajectory import last_of, trained
from tests.support.trying import raced, whole

N, BUDGET = 8, 20
SECTION = MergeParams(device="cpu")
BY_KIND: dict[str, Any] = {
    "over": {"method": ["trend"], "newest": [5, 8]},
    "between": {"trend.kappa": [0, 1]},
    "by_layer_kind": True,
}


class Found(NamedTuple):
    """What one search found."""

    first: NDArray[np.float64]
    """Losses of what merge says on the test items."""
    accepted: NDArray[np.float64]
    """And of what the guard let through."""
    best: NDArray[np.float64]
    """And of the best on the select items, guard or no guard."""
    kept: bool
    """Whether the guard kept what merge says."""
    said: str
    dropped: float
    """Share of the candidates that were dropped after the items that are asked first."""
    right: bool
    """Whether none of them does better on all select items than the best of the others."""


def samplers(scratch: Path) -> dict[str, Callable[[], Proposals]]:
    """Return what proposes candidates, by name."""

    def drawn(sampler: str, **space: Any) -> Proposals:
        params = SearchParams.model_validate({"budget": BUDGET, "sampler": sampler, **space})
        return draw_candidates(params, partial(is_read, SECTION), N, scratch / f"{sampler}.log")

    return {
        "surface": lambda: surface(N, BUDGET),
        "greedy": lambda: greedy([(1.0,)] * N),
        "tpe (default)": lambda: drawn("tpe"),
        "tpe, trend by kind of layer": lambda: drawn("tpe", **BY_KIND),
        "cmaes, weights": lambda: drawn("cmaes"),
    }


def search(run: Path, scratch: Path) -> dict[str, Found]:
    """Search a run by every sampler."""
    last, select, test = last_of(run, N), batches_of(run, "select"), batches_of(run, "test")
    known: dict[tuple[Candidate, str], NDArray[np.float64]] = {}

    def on(split: str, candidate: Candidate) -> NDArray[np.float64]:
        if (candidate, split) not in known:
            out = scratch / "merged"
            merge_directories(merge_params(SECTION, candidate.settings), last[-candidate.newest :], out)
            known[candidate, split] = item_losses(out, select if split == "select" else test)
        return known[candidate, split]

    found = {}
    for name, proposals in samplers(scratch).items():

        def select_losses(candidate: Candidate) -> Losses:
            losses = on("select", candidate)
            return Losses(losses[np.random.default_rng(0).permutation(losses.size)])

        first = int(SearchParams().first_items * len(on("select", as_it_stands(N))))
        measure = whole(select_losses) if name == "surface" else raced(select_losses, first)
        tried = run_trials(proposals(), as_it_stands(N), BUDGET, measure)
        first, accepted, best = (on("test", own) for own in (tried.first, tried.accepted, tried.best))
        dropped = [candidate for candidate, losses in tried.losses.items() if losses.dropped]
        least = min((on("select", candidate).mean() for candidate in dropped), default=np.inf)
        found[name] = Found(
            first,
            accepted,
            best,
            tried.accepted == tried.first,
            tried.said or "",
            len(dropped) / len(tried.losses),
            bool(on("select", tried.best).mean() <= least),
        )
    return found


def show(schedule: str, found: list[dict[str, Found]]) -> None:
    """Print test losses, and the paired differences from what merge says seed by seed."""
    first = [next(iter(own.values())).first.mean() for own in found]
    rows = [["as merge says", " ".join(f"{loss:.3f}" for loss in first), "", "", "", "", "", ""]]
    for name in found[0]:
        own = [seed[name] for seed in found]
        gains = [one.first - one.accepted for one in own]
        errors = [gain.std(ddof=1) / len(gain) ** 0.5 for gain in gains]
        means = np.array([gain.mean() for gain in gains])
        better = sum(mean >= error > 0 for mean, error in zip(means, errors, strict=True))
        worse = sum(-mean > error for mean, error in zip(means, errors, strict=True))
        unguarded = np.mean([one.first.mean() - one.best.mean() for one in own])
        each = " ".join(f"{one.accepted.mean():.3f}" for one in own)
        spread = means.std(ddof=1) / len(means) ** 0.5
        kept, right = sum(one.kept for one in own), sum(one.right for one in own)
        race = f"{np.mean([one.dropped for one in own]):.0%}, {right} of {len(own)}"
        rows.append(
            [name, each, f"{means.mean():+.4f} ± {spread:.4f}", str(better), str(worse), str(kept), f"{unguarded:+.4f}", race]
        )  # fmt: skip
    head = [
        schedule,
        "test NLL by seed",
        "gain",
        "better by 1 SE",
        "worse by 1 SE",
        "kept",
        "gain without guard",
        "dropped early; the best not among them",
    ]
    print(table(head, rows), flush=True)
    for number, own in enumerate(found):
        print(f"seed {number}: {own['surface'].said}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--schedules", nargs="+", default=["constant", "linear"])
    arguments = parser.parse_args()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for schedule in arguments.schedules:
        found = []
        for seed in arguments.seeds:
            say(f"{schedule}, seed {seed}")
            run = trained(seed, schedule)
            with tempfile.TemporaryDirectory() as scratch:
                found.append(search(run, Path(scratch)))
        show(schedule, found)


if __name__ == "__main__":
    main()
