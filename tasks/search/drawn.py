"""Candidates that an Optuna sampler draws, learning from those before."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from tasks.parameters.search import NEWEST, SearchParams
from tasks.parameters.varying import Rules
from tasks.search.candidate import WEIGHT_DIGITS, Candidate, Value, weighted
from tasks.search.layer_kinds import LAYER_KINDS, for_layer_kinds
from tasks.search.storage import answering, new_storage
from tasks.search.trials import Proposals

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler

Choices: TypeAlias = Mapping[str, Sequence[str | int | float | bool]]
Ranges: TypeAlias = Mapping[str, tuple[float, float]]
IsRead: TypeAlias = Callable[[str, Mapping[str, Value]], bool]
DrawNumber: TypeAlias = "Callable[[Trial, str, tuple[float, float]], Value]"

METHODS_TRIED = ("average", "ema", "trend", "drift")
RANGES_TRIED = {"ema.decay": (0.3, 0.95), "trend.kappa": (0.0, 1.0)}
"""What tpe draws from where nothing is named: what did best on the runs of docs/trajectory.md."""


def draw_candidates(params: SearchParams, is_read: IsRead, count: int, log: Path) -> Proposals:
    """Draw candidates for ever; Optuna's dashboard opens `log`, its journal, or the database of `storage`.

    `is_read` tells whether the method that is set reads a key. The study is begun anew: the same seed and
    the same losses draw the same candidates again. Raises Unavailable where the database does not answer.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage, sampler = new_storage(params.storage, log), _sampler(params)
        with answering(params.storage):
            study = optuna.create_study(storage=storage, sampler=sampler, study_name=log.stem)
    over, between = _space(params, count)
    number = _number_by_layer_kind if params.by_layer_kind else _number

    def drawn(trial: "Trial") -> Candidate:
        if over or between:
            return _drawn(trial, over, between, is_read, count, number)
        return _drawn_weights(trial, count)

    while True:
        with answering(params.storage):
            trials = [study.ask() for _ in range(params.at_once)]
            candidates = [drawn(trial) for trial in trials]
        answers = yield candidates
        with answering(params.storage):
            for trial, losses in zip(trials, answers, strict=True):
                study.tell(trial, losses.mean)


def _sampler(params: SearchParams) -> "BaseSampler":
    from optuna.samplers import CmaEsSampler, GPSampler, TPESampler

    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=params.seed),
        "cmaes": lambda: CmaEsSampler(seed=params.seed),
        "gp": lambda: GPSampler(seed=params.seed, deterministic_objective=True),
    }
    return made[params.sampler]()


def _space(params: SearchParams, count: int) -> tuple[Choices, Ranges]:
    if params.over or params.between or params.sampler != "tpe":
        return params.over, params.between
    return {"method": METHODS_TRIED, NEWEST: tuple(range(2, count + 1))}, RANGES_TRIED


def _drawn_weights(trial: "Trial", count: int) -> Candidate:
    shares = [trial.suggest_float(f"weight {place}", 0.0, 1.0) for place in range(count)]
    total = sum(shares) or 1.0
    return weighted([round(share / total, WEIGHT_DIGITS) for share in shares])


def _drawn(
    trial: "Trial", over: Choices, between: Ranges, is_read: IsRead, count: int, number: DrawNumber
) -> Candidate:
    settings: dict[str, Value] = {}
    # the method first: it says which other keys are read
    for key in sorted([*over, *between], key=lambda key: (key != "method", key)):
        if key not in ("method", NEWEST) and not is_read(key, settings):
            continue
        if key in over:
            settings[key] = cast("Value", trial.suggest_categorical(key, over[key]))
        else:
            settings[key] = number(trial, key, between[key])
    newest = settings.pop(NEWEST, count)
    return Candidate(int(str(newest)), tuple(sorted(settings.items())))


def _number(trial: "Trial", key: str, ends: tuple[float, float]) -> float:
    return float(f"{trial.suggest_float(key, *ends):.{WEIGHT_DIGITS}g}")


def _number_by_layer_kind(trial: "Trial", key: str, ends: tuple[float, float]) -> Rules:
    return for_layer_kinds({kind: _number(trial, f"{key} {kind}", ends) for kind in LAYER_KINDS})
