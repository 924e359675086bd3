"""A shortcut gives what the long way gives, whatever is set for it, and reads nothing else."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tasks.merging.layers import Layers
from tasks.merging.methods import METHODS, method_of
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tasks.parameters.section import Section
from tasks.parameters.varying import resolve
from tests.support.engine_runs import ON_WEIGHTS_ALONE
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, trajectory

OTHERS: dict[str, Any] = {
    "lam": (0.0, 1.7, [{"match": "tall", "value": 0.2}, {"value": 2.0}]),
    "weights": ((1.0, 3.0), "nan", "metagpt"),
    "lore.preset": ("paper",),
    "lore.mu": (0.2,),
    "lore.mu_scale": ("absolute", "sigma1", "noise_edge", "rank"),
    "lore.penalty": (),  # squared goes with absolute: below
    "lore.rank_ratio": (0.3,),
    "lore.anchor": (),  # breaks the symmetry that the shortcut rests on
    "lore.combine": ("mean", "ties"),
    "lore.embeddings": ("average",),
    "lore.tolerance": (1e-2,),
    "lore.passes": (3,),
    "lore.time_limit": (5.0,),
    "ties.density": (0.5,),
    "ties.scope": (),  # model is refused for lore, and any other method has no shortcut
    "ties.normalize": (False,),
    "nan.of": ("task_vectors",),
    "nan.per": ("model",),
    "nan.scale": (1.7,),
    "metagpt.per": ("tensor",),
    "ema.decay": (0.3,),
    "ema.half_life": (2.0,),
    "power_ema.width": (0.2,),
    "wsm.profile": ("cosine",),
    "trend.kappa": (0.9,),
    "trimmed_mean.share": (0.4,),
    "lawa.k": (1,),
    "lawa.spacing": (2,),
    "dare.p": (0.2,),
    "dare.seed": (3,),
    "breadcrumbs.density": (0.5,),
    "breadcrumbs.gamma": (0.2,),
    "slerp.t": (0.2,),
    "widen.t": (-1.0,),
    "widen.s": (0.3,),
}
"""Key of the merge section -> values that are not its default."""


def keys_of(method: str) -> Iterator[str]:
    """Yield every key that a row of the table says its method reads."""
    defaults = MergeParams()
    for section in METHODS[method].sections:
        value = getattr(defaults, section)
        yield from (f"{section}.{key}" for key, _ in value) if isinstance(value, Section) else (section,)


def params_with(method: str, key: str, value: Any) -> MergeParams:
    section, _, own = key.partition(".")
    return MergeParams.model_validate({"method": method, section: {own: value} if own else value})


CASES = [
    pytest.param(method, params_with(method, key, value), id=f"{method}-{key}-{value}")
    for method in ON_WEIGHTS_ALONE
    for key in keys_of(method)
    for value in OTHERS[key]
]
CASES.append(
    pytest.param(
        "lore",
        MergeParams.model_validate(
            {"method": "lore", "lam": 1.7, "lore": {"penalty": "squared", "mu_scale": "absolute", "mu": 0.01}}
        ),
        id="lore-squared",
    )
)


SCALES = {
    "near each other": (0.1, [1.0] * len(SHAPES)),
    "far apart": (3.0, [1.0] * len(SHAPES)),
    "tensors of many sizes": (0.1, [2.0**power for power in range(-15, 15, 5)]),
}
"""Kind of run -> how far its checkpoints lie from the base, and what each tensor is multiplied by."""


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize(("method", "params"), CASES)
def test_two_checkpoints_merge_alike_by_the_shortcut_and_by_the_method_itself(
    method: str, params: MergeParams, kind: str
) -> None:
    step, scales = SCALES[kind]
    own, others = trajectory(2, step=step)
    base, *models = (
        {name: scale * model[name] for name, scale in zip(SHAPES, scales, strict=True)}
        for model in (own, *others)
    )
    layers = Layers.of(SHAPES)
    settings = Settings(params, lambda name: resolve(params, name, layers.position(name)), [1, 2], SHAPES)
    taken, _ = merge(params, models, base, row=method_of([settings]))
    itself, _ = merge(params, models, base, row=METHODS[method]._replace(averages=lambda settings: False))
    for name, scale in zip(SHAPES, scales, strict=True):
        np.testing.assert_allclose(taken[name], itself[name], rtol=0, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("lam", [0.0, 1.7])
def test_lore_of_two_checkpoints_is_their_average_whatever_lambda(lam: float) -> None:
    params = MergeParams(method="lore", lam=lam)
    _, models = trajectory(2)
    settings = Settings(params, lambda name: params, [1, 2], SHAPES)
    merged, _ = merge(params, models, row=method_of([settings]))
    for name in SHAPES:
        np.testing.assert_array_equal(merged[name], (models[0][name] + models[1][name]) / 2)
