"""Stage search: real tiny models on real select items; nothing is asked twice, and merge follows it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput
from tasks.base.records.search import SearchReport
from tasks.evaluate_merge import evaluate_merge
from tasks.evaluation import measure
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints, plan_selection
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.search import SearchParams
from tasks.parameters.selection import SelectParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.search_merge import search_merge
from tasks.select_checkpoints import select_checkpoints
from tests.support.killing import kill, spawn
from tests.support.tiny_world import TASKS, choosing_params, write_model, write_task

pytestmark = pytest.mark.usefixtures("offline")

LORE = MergeParams(method="lore", device="cpu")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Select three real models."""
    for step in (1, 2, 3):
        directory = write_model(tmp_path / "training" / f"checkpoint-{step}", seed=step)
        (directory / "trainer_state.json").write_text(f'{{"global_step": {step}, "log_history": []}}')
    root = tmp_path / "artifacts"
    fetch_run(FetchParams(source=str(tmp_path / "training"), settle=0), root)
    select_checkpoints(SelectParams(far="keep"), root)
    return root


@pytest.fixture
def params(tmp_path: Path) -> EvaluateParams:
    """Return tasks of one kind on two sets of items."""
    return choosing_params(tmp_path / "world")


def search(artifacts: Path, params: EvaluateParams, merge: MergeParams = LORE, **given: Any) -> SearchReport:
    return search_merge(SearchParams(**given), merge, params, artifacts)


@pytest.mark.parametrize(
    "sampler", ["surface", *(pytest.param(own, marks=pytest.mark.slow) for own in ("greedy", "cmaes"))]
)
def test_the_merge_is_what_the_search_found(sampler: str, artifacts: Path, params: EvaluateParams) -> None:
    found = search(artifacts, params, sampler=sampler, budget=8)
    assert found.metric == "choosing/nll"
    assert found.items == 9
    assert 3 <= len(found.tried) <= 8
    assert found.tried[0].gain == 0
    best = min(found.tried, key=lambda tried: tried.mean)
    assert found.accepted == (best.gain > best.error)
    report = merge_checkpoints(LORE, artifacts)
    assert report.notes.count(found.sentence) == 1
    assert report.method == found.merge["method"]
    assert not (artifacts / "search" / "candidate").exists()
    c = torch.tensor(found.merge.get("weights", [1.0] * 3), dtype=torch.float64)
    models = [
        load_file(artifacts.parent / "training" / f"checkpoint-{step}" / "model.safetensors")
        for step in (1, 2, 3)
    ]
    for name, merged in load_file(artifacts / "merged" / "model.safetensors").items():
        wanted = sum(float(w) * model[name].double() for w, model in zip(c / c.sum(), models, strict=True))
        assert torch.allclose(merged.double(), wanted, atol=1e-6)  # type: ignore[arg-type]


@pytest.fixture
def many(params: EvaluateParams, tmp_path: Path) -> EvaluateParams:
    """Return the same tasks, with as many items to choose on as a race needs."""
    items = [
        {"question": f"{a} + 7", "answer": str(a + 7), "choices": ["a", "b"], "gold": 1} for a in range(400)
    ]
    path = tmp_path / "world" / "data" / "chosen.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return params.model_copy(update={"batch_size": 128})


@pytest.mark.slow
def test_who_falls_behind_on_the_first_items_is_asked_no_more(artifacts: Path, many: EvaluateParams) -> None:
    """Models of other seeds average to nonsense: one of them alone is far ahead, or far behind."""
    raced = search(artifacts, many, sampler="greedy", budget=6)
    shutil.rmtree(artifacts / "search")
    whole = search(artifacts, many, sampler="greedy", budget=6, first_items=1)
    assert {tried.items for tried in whole.tried} == {400}
    dropped = [tried for tried in raced.tried if tried.items != 400]
    assert 0 < len(dropped) < len(raced.tried)
    assert {60 < (tried.items or 0) < 140 for tried in dropped} == {True}
    assert (raced.merge, raced.accepted) == (whole.merge, whole.accepted)
    first, same = raced.tried[0], whole.tried[0]
    assert first == same.model_copy(update={"mean": first.mean})
    assert first.mean == pytest.approx(same.mean, rel=1e-7)  # in other batches float32 rounds otherwise
    for mine, other in zip(raced.tried[:4], whole.tried[:4], strict=True):
        assert mine.candidate == other.candidate
        assert mine.mean == pytest.approx(other.mean, abs=4 * mine.error + 1e-4)


@pytest.mark.slow
def test_on_two_devices_at_a_time_it_finds_the_same(artifacts: Path, params: EvaluateParams) -> None:
    alone = search(artifacts, params, sampler="surface", budget=8)
    shutil.rmtree(artifacts / "search")
    shutil.rmtree(state_dir() / "evaluations")
    told: list[str] = []
    given = SearchParams(sampler="surface", budget=8, devices=("cpu", "cpu"))
    together = search_merge(given, LORE, params, artifacts, on_answers=lambda turn: told.append(str(turn)))
    assert [own.candidate for own in together.tried] == [own.candidate for own in alone.tried]
    for mine, other in zip(together.tried, alone.tried, strict=True):
        assert mine.mean == pytest.approx(other.mean, rel=1e-5)
    assert any("9 of 9 items" in line for line in told)
    assert search(artifacts, params, sampler="surface", budget=8, devices=("cpu",)) == together  # is there
    for known in (artifacts / "search", state_dir() / "evaluations"):
        shutil.rmtree(known)
    with pytest.raises(BadInput, match=r"evaluate\.device: nonsense"):
        search(artifacts, params, sampler="surface", budget=8, devices=("cpu", "nonsense"))


def test_without_a_budget_everything_is_as_before(artifacts: Path, params: EvaluateParams) -> None:
    before = merge_checkpoints(LORE, artifacts).digest
    shutil.rmtree(artifacts / "merged")
    assert search(artifacts, params).merge == {}
    assert search(artifacts, params.model_copy(update={"select_tasks": ()})).sentence == ""
    assert merge_checkpoints(LORE, artifacts).digest == before


@pytest.mark.slow
def test_stopped_anywhere_it_asks_nothing_twice_and_finds_the_same(
    artifacts: Path, params: EvaluateParams, loaded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    left, real = [2], measure._samples

    def stopping(*arguments: Any, **named: Any) -> Any:
        if not left[0]:
            raise Stopped
        left[0] -= 1
        return real(*arguments, **named)

    monkeypatch.setattr(measure, "_samples", stopping)
    while True:
        try:
            found = search(artifacts, params, budget=8, sampler="tpe", seed=1)
            break
        except Stopped:
            assert not (artifacts / "search").exists()
            left[0] = 2
    asked = len(loaded)
    assert len(found.tried) == 8
    assert asked <= 8 + 3  # a model that was loaded when it was stopped is loaded again
    shutil.rmtree(artifacts / "search")
    assert search(artifacts, params, budget=8, sampler="tpe", seed=1) == found
    assert len(loaded) == asked


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.5, 1.5, 3.0, 5.0])
def test_killed_it_goes_on_and_finds_the_same(after: float, artifacts: Path, params: EvaluateParams) -> None:
    def search_here() -> None:
        search(artifacts, params, budget=8, sampler="surface")

    child = spawn(search_here)
    child.join(after)
    kill(child)
    found = search(artifacts, params, budget=8, sampler="surface")
    shutil.rmtree(artifacts / "search")
    shutil.rmtree(state_dir() / "evaluations")
    assert search(artifacts, params, budget=8, sampler="surface") == found
    assert sorted(path.name for path in artifacts.iterdir()) == ["checkpoints", "run", "search", "selection"]


@pytest.mark.slow
def test_a_merge_of_some_is_judged_beside_the_average_of_all(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    found = search(artifacts, params, budget=3, sampler="tpe", over={"newest": (2,), "method": ("average",)})
    report = SearchReport.read(artifacts / "search" / "search.json")
    forced = report.model_copy(update={"newest": 2, "merge": {"method": "average"}, "accepted": True})
    forced.write(artifacts / "search" / "search.json")
    merged = merge_checkpoints(LORE, artifacts)
    assert [source.step for source in merged.inputs] == [2, 3]
    roles = {model.role for model in evaluate_merge(params, store, artifacts).models}
    assert {"average", "merge", "last"} <= roles
    registration = register_model(store, artifacts)
    tags = connect(store).get_model_version(registration.name, str(registration.version)).tags
    assert json.loads(tags["loreline.steps"]) == [2, 3]
    assert len(found.tried) == 2


def test_a_search_of_something_else_is_not_followed(artifacts: Path, params: EvaluateParams) -> None:
    search(artifacts, params, budget=4, sampler="greedy")
    plan_selection(LORE, artifacts)
    with pytest.raises(BadInput, match="is of other checkpoints or parameters; run loreline search again"):
        merge_checkpoints(MergeParams(dtype="bfloat16"), artifacts)
    select_checkpoints(SelectParams(k=2, far="keep"), artifacts)
    with pytest.raises(BadInput, match="run loreline search again"):
        plan_selection(LORE, artifacts)
    search(artifacts, params)
    assert merge_checkpoints(MergeParams(method="ema"), artifacts).method == "ema"


@pytest.mark.parametrize(
    ("given", "evaluate", "problem"),
    [
        (
            {"budget": 8},
            {"select_tasks": ()},
            "search.budget: there is nothing to choose on; set evaluate.select",
        ),
        ({"budget": 8}, {"select_tasks": ("same",)}, "documents are asked elsewhere too: 12 of same"),
        ({"budget": 3, "sampler": "surface"}, {}, "search.budget: the surface of two checkpoints needs 5"),
        (
            {"budget": 8, "sampler": "surface", "over": {"newest": (2,)}},
            {},
            "surface searches weights alone; take tpe",
        ),
        ({"budget": 8, "sampler": "tpe", "over": {"newest": (9,)}}, {}, "9 is not among 2 to 3"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_asked(
    given: dict[str, Any], evaluate: dict[str, Any], problem: str,
    artifacts: Path, params: EvaluateParams, loaded: list[Path],
) -> None:  # fmt: skip
    path = write_task(Path(str(params.include_path)), "same", TASKS["likely"])
    path.write_text(path.read_text().replace("{{question}}:", "{{question}} :"))
    with pytest.raises(BadInput, match=problem):
        search(artifacts, params.model_copy(update=evaluate), **given)
    assert not loaded
    assert not (artifacts / "search").exists()
