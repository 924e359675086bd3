"""Candidates that an Optuna sampler draws, learning from those before."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from tasks.parameters.search import NEWEST, SearchParams
from tasks.search.candidate import WEIGHT_DIGITS, Candidate, Value, weighted
from tasks.search.trials import Proposals

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler

IsRead: TypeAlias = Callable[[str, Mapping[str, Value]], bool]


def draw_candidates(params: SearchParams, is_read: IsRead, count: int, log: Path) -> Proposals:
    """Draw candidates for ever; `log` is Optuna's journal, which its dashboard opens.

    `is_read` tells whether the method that is set reads a key. The journal is begun anew: the same seed and
    the same losses draw the same candidates again.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(log))),
            sampler=_sampler(params),
            study_name=log.stem,
        )
    while True:
        trial = study.ask()
        losses = yield _drawn(trial, params, is_read, count)
        study.tell(trial, losses.mean)


def _sampler(params: SearchParams) -> "BaseSampler":
    from optuna.samplers import CmaEsSampler, GPSampler, TPESampler

    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=params.seed),
        "cmaes": lambda: CmaEsSampler(seed=params.seed),
        "gp": lambda: GPSampler(seed=params.seed, deterministic_objective=True),
    }
    return made[params.sampler]()


def _drawn(trial: "Trial", params: SearchParams, is_read: IsRead, count: int) -> Candidate:
    if not params.over and not params.between:
        shares = [trial.suggest_float(f"weight {place}", 0.0, 1.0) for place in range(count)]
        total = sum(shares) or 1.0
        return weighted([round(share / total, WEIGHT_DIGITS) for share in shares])
    settings: dict[str, Value] = {}
    # the method first: it says which other keys are read
    for key in sorted([*params.over, *params.between], key=lambda key: (key != "method", key)):
        if key not in ("method", NEWEST) and not is_read(key, settings):
            continue
        if key in params.over:
            settings[key] = cast("Value", trial.suggest_categorical(key, params.over[key]))
        else:
            settings[key] = float(f"{trial.suggest_float(key, *params.between[key]):.{WEIGHT_DIGITS}g}")
    newest = settings.pop(NEWEST, count)
    return Candidate(int(str(newest)), tuple(sorted(settings.items())))
