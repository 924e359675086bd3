"""A job's key changes exactly when something does that decides the merge or its verdict."""

from typing import Any

import pytest

from tasks.base.records.record import FileDigest
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.jobs.identity import identity_of, key_of, seen_as, that_matter
from tasks.parameters.merge import LoreParams, MergeParams
from tasks.parameters.params import Params

GOOD: dict[str, Any] = {
    "fetch": {"source": "runs/x"},
    "merge": {"method": "lore"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
}
DECIDE: dict[str, Any] = {
    "fetch.base": "models/base",
    "fetch.means": True,
    "select.rule": "spaced",
    "select.k": 3,
    "select.metric": "eval_accuracy",
    "select.mode": "max",
    "select.fraction": 0.25,
    "select.steps": [100, 200],
    "select.far": "keep",
    "search.budget": 20,
    "search.minutes": 5.0,
    "search.sampler": "greedy",
    "search.over": {"newest": (2, 3)},
    "search.between": {"ema.decay": (0.3, 0.9)},
    "search.by_layer_kind": True,
    "search.first_items": 0.5,
    "search.seed": 1,
    "merge.method": "ties",
    "merge.base": "models/base",
    "merge.full": True,
    "merge.adapter_rank": 8,
    "merge.lam": 0.3,
    "merge.weights": "nan",
    "merge.dtype": "float32",
    "merge.on_nan": "drop",
    "merge.max_shard_size": "1GB",  # other files, another digest
    "merge.lore": {"mu": 0.5},
    "merge.ema": {"decay": 0.5},
    "merge.lawa": {"k": 2},
    "merge.power_ema": {"width": 0.2},
    "merge.wsm": {"profile": "cosine"},
    "merge.trend": {"kappa": 0.1},
    "merge.trimmed_mean": {"share": 0.4},
    "merge.ties": {"density": 0.5},
    "merge.dare": {"seed": 1},
    "merge.breadcrumbs": {"gamma": 0.1},
    "merge.slerp": {"t": 0.1},
    "merge.metagpt": {"per": "tensor"},
    "merge.nan": {"scale": 2.0},
    "merge.widen": {"t": 2.0},
    "merge.regmean": {"alpha": 0.5},
    "merge.adamerging": {"steps": 10},
    "merge.calibration": {"items": 64},
    "evaluate.tasks": ["t", "u"],
    "evaluate.include_path": "tasks",
    "evaluate.primary": "t/acc",
    "evaluate.min_gain": 0.1,
    "evaluate.margin": 0.5,
    "evaluate.beat_average": False,
    "evaluate.guard_strictly": ("t/acc",),
    "evaluate.margins": {"t/acc": 0.1},
    "evaluate.limit": 10,
    "evaluate.num_fewshot": 3,
    "evaluate.seed": 1,
    "evaluate.chat_template": True,
    "evaluate.system_instruction": "Answer.",
    "evaluate.fewshot_as_multiturn": True,
    "evaluate.generation": {"max_gen_toks": 5},
    "evaluate.cluster": "passage",
    "evaluate.backend": "vllm",
    "evaluate.reference": 3,
    "evaluate.vault": ("v",),
    "evaluate.vault_share": 0.5,
    "evaluate.select_tasks": ("s",),
    "evaluate.spending": "alpha",
    "evaluate.training_data": ("train.jsonl",),
    "register.name": "another",
}
DO_NOT: dict[str, Any] = {
    "fetch.source": "/copies/x",
    "fetch.convert": True,  # what it does not convert is refused: no merge without it is another one with it
    "fetch.wait": 60.0,
    "fetch.settle": 0.0,
    "search.storage": "sqlite:///trials.db",
    "search.devices": ("cuda:0", "cuda:1"),
    "merge.device": "cpu",
    "evaluate.batch_size": 8,
    "evaluate.device": "cpu",
    "register.tracking_uri": "http://127.0.0.1:5000",
    "register.publish": "always",
    "register.promote": "auto",
    "register.push_to": "org/name",
    "version.branch": "others",
    "version.push": True,
    "version.git_remote": "origin",
    "watch.roots": ["runs/*"],
    "watch.quiet_for": 60.0,
    "watch.notify": "slack-webhook/merges",
    "watch.merge_expected_within": 7.0,
    "retention.newest": 3,
    "retention.promoted_within": 7.0,
    "retention.leftovers": 7.0,
}


def params(**changes: Any) -> Params:
    tree = {section: dict(values) for section, values in GOOD.items()}
    for key, value in changes.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    return Params.model_validate(tree)


def run(*digests: str, source: str = "runs/x") -> TrainingRun:
    checkpoints = tuple(
        Checkpoint(
            name=f"checkpoint-{step}",
            step=step,
            source=f"{source}/checkpoint-{step}",
            metrics={},
            files=(FileDigest(name="model.safetensors", size=1, sha256=digest),),
        )
        for step, digest in enumerate(digests)
    )
    return TrainingRun(name="x", source=source, checkpoints=checkpoints, left_out=())


def test_somebody_decided_about_every_section_and_every_parameter() -> None:
    """A new one fails here until it is in one of the two tables, and in tasks/jobs/identity.py if need be."""
    every = {
        f"{field.alias or section}.{name}"
        for section, field in Params.model_fields.items()
        for name in field.annotation.model_fields  # type: ignore[union-attr]
    }
    assert every == DECIDE.keys() | DO_NOT.keys()
    assert not DECIDE.keys() & DO_NOT.keys()


@pytest.mark.parametrize("key", DECIDE)
def test_what_decides_changes_key_and_identity(key: str) -> None:
    changed = params(**{key: DECIDE[key]})
    assert key_of("status", changed) != key_of("status", params())
    assert identity_of(run("a"), changed) != identity_of(run("a"), params())
    assert (seen_as("status", changed) == seen_as("status", params())) is (key != "register.name")


@pytest.mark.parametrize("key", DO_NOT)
def test_what_does_not_decide_changes_neither(key: str) -> None:
    changed = params(**{key: DO_NOT[key]})
    assert changed != params()
    assert key_of("status", changed) == key_of("status", params())
    assert identity_of(run("a"), changed) == identity_of(run("a"), params())


@pytest.mark.parametrize("name", LoreParams.model_fields)
def test_every_parameter_of_a_method_decides(name: str) -> None:
    others = {
        "preset": "paper", "mu": {"gradient": [1.0, 2.0]}, "mu_scale": "sigma1", "penalty": "squared", "rank_ratio": 0.5,
        "anchor": 100, "combine": "ties", "embeddings": "average", "tolerance": 1e-3, "passes": 3,
        "time_limit": 5.0,
    }  # fmt: skip
    changed = params(**{"merge.lore": {name: others[name]}})
    assert that_matter(changed) != that_matter(params())


def test_a_default_that_is_spelled_out_changes_nothing_nor_would_a_new_parameter_with_a_default() -> None:
    spelled = params(**{f"merge.{key}": value for key, value in MergeParams().model_dump().items()})
    unsaid = Params.model_validate({key: value for key, value in GOOD.items() if key != "merge"})
    assert key_of("status", spelled) == key_of("status", unsaid)
    sections: dict[str, Any] = {
        "select": {}, "merge": {}, "evaluate": {"tasks": ["t"], "primary": "t/nll"}, "register": {},
    }  # fmt: skip
    assert that_matter(unsaid) == sections | {"merge": {"method": "planned"}}
    assert that_matter(params()) == sections  # as 0.1.0, whose default lore was, had it


def test_the_status_decides_the_key_and_the_checkpoints_the_identity_wherever_they_lie() -> None:
    assert key_of("one", params()) != key_of("other", params())
    assert identity_of(run("a", "b"), params()) == identity_of(run("a", "b", source="/copies/x"), params())
    assert identity_of(run("a", "b"), params()) != identity_of(run("a", "c"), params())
