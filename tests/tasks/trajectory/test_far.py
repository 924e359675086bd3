"""A checkpoint that has diverged is named before anything is merged, and is in no window."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tasks.base.records.selection import FarCheckpoint
from tasks.parameters.selection import SelectParams
from tasks.trajectory.far import far_of, find_far
from tasks.trajectory.plan import plan_run
from tasks.trajectory.plan_directory import plan_directory
from tasks.trajectory.sampled_distances import Spread
from tests.support.tiny_adapters import write_adapter, write_llama

STEPS = [100, 200, 300, 400, 500]
Tensors = dict[str, np.ndarray]
Change = Callable[[Tensors, np.random.Generator], None]


def write_run(place: Path, change: Change | None = None, bad: int = 300, dtype: str = "float32") -> Path:
    """Write a random walk of five checkpoints, one of them changed; one tensor is larger than its sample."""
    rng = np.random.default_rng(0)
    shapes = {"embed": (300, 80), "layer.weight": (24, 24), "norm": (24,)}
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    weights["norm"] = 1 + 0.1 * weights["norm"]
    for step in STEPS:
        for name in weights:
            weights[name] = weights[name] + 0.1 * rng.standard_normal(shapes[name])
        own = dict(weights)
        if change and step == bad:
            change(own, rng)
        directory = place / f"checkpoint-{step}"
        directory.mkdir(parents=True)
        save_file({name: t.astype(dtype) for name, t in own.items()}, directory / "model.safetensors")
    return place


def found(run: Path) -> list[FarCheckpoint]:
    return find_far([(step, run / f"checkpoint-{step}") for step in STEPS])


def drifted(own: Tensors, rng: np.random.Generator) -> None:
    for name in own:
        own[name] = own[name] + 0.6 * rng.standard_normal(own[name].shape)


def shuffled(own: Tensors, rng: np.random.Generator) -> None:
    own["layer.weight"] = rng.permuted(own["layer.weight"])


def scaled(own: Tensors, rng: np.random.Generator) -> None:
    own["norm"] = 3 * own["norm"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("bad", [100, 300, 500])
@pytest.mark.parametrize(
    ("change", "tensor"), [(drifted, None), (shuffled, "layer.weight"), (scaled, "norm")]
)
def test_what_has_diverged_is_found_wherever_it_is(
    tmp_path: Path, change: Change, tensor: str | None, bad: int, dtype: str
) -> None:
    [far] = found(write_run(tmp_path, change, bad, dtype))
    assert (far.step, far.tensor) == (bad, tensor)
    assert far.times is not None
    assert far.times > 2


def test_a_healthy_run_has_none(tmp_path: Path) -> None:
    assert found(write_run(tmp_path)) == []


def test_what_cannot_be_compared_is_left_to_the_merge(tmp_path: Path) -> None:
    run = write_run(tmp_path, lambda own, rng: own.update(norm=np.full(24, np.nan)))
    assert found(run) == []
    (run / "checkpoint-200" / "model.safetensors").unlink()
    assert found(run) == []


FALLING: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: (1 - np.cos(np.pi * left)) / 2,
    "1-sqrt": lambda left: 1 - (1 - left) ** 0.5,
}


def falling(rate: Callable[[float], float], straight: float) -> list[Tensors]:
    """Return the newest eight of twenty checkpoints, whose steps are as long as the rate that is left."""
    rng = np.random.default_rng(1)
    way, place, found = rng.standard_normal((60, 50)), 10 * rng.standard_normal((60, 50)), []
    for i in range(1, 21):
        place = place + rate(1 - i / 20) * (straight * way + (1 - straight) * rng.standard_normal((60, 50)))
        found.append({"w": place})
    return found[-8:]


@pytest.mark.parametrize("straight", [0.0, 0.7])
@pytest.mark.parametrize("rate", FALLING.values(), ids=FALLING)
def test_the_oldest_of_a_falling_rate_are_on_the_way_and_one_that_left_it_is_not(
    tmp_path: Path, rate: Callable[[float], float], straight: float
) -> None:
    healthy = falling(rate, straight)
    assert named(tmp_path / "healthy", healthy) == []
    rng = np.random.default_rng(2)
    size = np.linalg.norm(healthy[0]["w"] - healthy[-1]["w"])
    for bad in (0, 3, 7):
        off = rng.standard_normal((60, 50))
        moved = {"w": healthy[bad]["w"] + 4 * size * off / np.linalg.norm(off)}
        case = [*healthy[:bad], moved, *healthy[bad + 1 :]]
        assert bad in named(tmp_path / f"{bad}", case)


def named(place: Path, models: list[Tensors]) -> list[int]:
    for i, own in enumerate(models):
        (place / str(i)).mkdir(parents=True)
        save_file(own, place / str(i) / "model.safetensors")
    return [far.step for far in find_far([(i, place / str(i)) for i in range(len(models))])]


def test_adapters_are_compared_by_their_factors(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    places = [write_adapter(tmp_path / f"checkpoint-{step}", base, 1, r=2) for step in STEPS[:3]]
    assert find_far(list(zip(STEPS, places, strict=False))) == []


def test_the_plan_names_it_and_leaves_it_out(tmp_path: Path) -> None:
    plan = plan_directory(write_run(tmp_path, drifted), SelectParams())
    assert plan.window == (100, 200, 400, 500)
    assert [own.step for own in plan.far] == [300]
    assert "Step 300 lies " in plan.sentence
    assert plan.sentence.endswith(
        "times as far from the others as is usual among them: it is not in the window."
    )


def test_the_majority_is_never_far() -> None:
    """Three tensors, in each another of three checkpoints stands out: the farthest one is named."""

    def alone(i: int, far: float) -> np.ndarray:
        points = np.diag([1.0, 1.0, 1.0])
        points[i, i] = far
        return np.linalg.norm(points[:, None] - points, axis=2)

    tensors = {"a": alone(0, 50.0), "b": alone(1, 90.0), "c": alone(2, 60.0)}
    spread = Spread(np.ones((3, 3)) - np.eye(3), tensors, dict.fromkeys(tensors, 1.0))
    assert [(own.step, own.tensor) for own in far_of([1, 2, 3], spread)] == [(2, "b")]


def test_where_the_others_are_equal_no_ratio_is_told() -> None:
    far = FarCheckpoint(step=3, times=None, tensor="w")
    assert far.sentence == "lies apart from the others, which are equal in w"
    assert plan_run([1, 2, 3], [], SelectParams(), [far]).window == (1, 2)
