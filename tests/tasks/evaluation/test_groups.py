"""A group's metrics are lm-eval's own of the same group, and its items those of its tasks."""

from pathlib import Path

import numpy as np
import pytest

from tasks.base.errors import BadInput
from tasks.evaluation.groups import group_result
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_spec import TaskSpec, group_spec
from tests.support.grouped_tasks import write_groups
from tests.support.measuring import run


def by_lm_eval(model: Path, folder: Path, group: str, name: str) -> float:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    lm = HFLM(pretrained=str(model), device="cpu", batch_size=4)
    found = lm_eval.simple_evaluate(lm, tasks=[group], task_manager=manager, bootstrap_iters=0)
    return float(found["groups"][name]["acc,none"])


def mean(result: TaskResult, metric: str) -> float:
    return float(np.average(result.values[metric], weights=result.weights or None))


class TestAsLmEval:
    @pytest.mark.parametrize("by_size", [True, False])
    def test_both_levels_have_its_means(
        self, tiny: Path, folder: Path, by_size: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 12, 4 and 12 items: the two ways to weigh differ."""
        monkeypatch.chdir(write_groups(folder, by_size))  # where lm-eval looks for data files
        found = run(tiny, folder, ("exam", "sciences"), "exam/acc")
        for name, sizes in {"exam": (12, 4, 12), "sciences": (12, 4)}.items():
            assert len(found[name].items) == sum(sizes)
            assert mean(found[name], "acc") == pytest.approx(by_lm_eval(tiny, folder, name, name))
            assert bool(found[name].weights) is not by_size
            assert sum(found[name].weights) == pytest.approx(0 if by_size else sum(sizes))

    def test_items_are_those_of_the_tasks(self, tiny: Path, folder: Path) -> None:
        write_groups(folder, True)
        found = run(tiny, folder, ("exam", "easy", "hard", "letters"), "exam/acc")
        tasks = [found[name] for name in ("easy", "hard", "letters")]
        assert found["exam"].items == tuple(item for task in tasks for item in task.items)
        for metric in ("acc", "nll"):
            assert found["exam"].values[metric] == tuple(v for task in tasks for v in task.values[metric])
        assert found["exam"].clusters == ()

    def test_only_what_was_asked_for_is_returned(self, tiny: Path, folder: Path) -> None:
        write_groups(folder, True)
        assert list(run(tiny, folder, ("exam", "hard"), "exam/acc")) == ["exam", "hard"]


class TestReuse:
    def test_a_task_is_measured_once_however_often_it_is_named(
        self, tiny: Path, folder: Path, loaded: list[Path]
    ) -> None:
        write_groups(folder, True)
        first = run(tiny, folder, ("hard", "exam"), "exam/acc")
        assert run(tiny, folder, ("sciences", "hard"), "sciences/nll")["hard"] == first["hard"]
        assert len(loaded) == 1


def result(task: str, **values: tuple[float, ...]) -> TaskResult:
    named = {name.replace("__", ","): column for name, column in values.items()}
    items = tuple(f"{task}{place}" for place in range(len(next(iter(values.values())))))
    return TaskResult(task=task, items=items, values=named, higher_is_better=dict.fromkeys(named, True))


def group(*metrics: dict[str, object]) -> TaskSpec:
    members = [TaskSpec(name, {}, name) for name in ("a", "b")]
    return group_spec("g", {"aggregate_metric_list": list(metrics)}, members)


class TestMetrics:
    def test_each_filter_is_found_by_its_name(self) -> None:
        one = result("a", em__loose=(1.0, 1.0), em__strict=(0.0, 1.0))
        other = result("b", em__strict=(1.0,), em__loose=(0.0,))
        strict = group_result(group({"metric": "em", "filter_list": ["strict"]}), [one, other])
        assert strict.values == {"em": (0.0, 1.0, 1.0)}
        every = group_result(group({"metric": "em"}), [one, other])
        assert every.values == {"em,loose": (1.0, 1.0, 0.0), "em,strict": (0.0, 1.0, 1.0)}

    def test_what_a_task_lacks_is_left_out(self) -> None:
        one, other = result("a", acc=(1.0,), nll=(2.0,)), result("b", acc=(0.0,), em=(1.0,))
        found = group_result(group({"metric": "acc"}, {"metric": "em"}), [one, other])
        assert found.values == {"acc": (1.0, 0.0)}

    def test_nothing_in_common_is_refused_with_the_tasks(self) -> None:
        one, other = result("a", acc=(1.0,)), result("b", em=(0.0,))
        with pytest.raises(BadInput, match="g: none of the metrics .*; name the tasks: a, b$"):
            group_result(group({"metric": "acc"}, {"metric": "em"}), [one, other])

    def test_weights_of_two_kinds_are_refused(self) -> None:
        one, other = result("a", acc=(1.0,), em=(1.0,)), result("b", acc=(1.0,), em=(0.0,))
        with pytest.raises(BadInput, match="g: weighs some metrics by size and some not"):
            group_result(group({"metric": "acc"}, {"metric": "em", "weight_by_size": False}), [one, other])


def member(task: str, items: int, clusters: tuple[str, ...] = ()) -> TaskResult:
    return TaskResult(
        task=task,
        items=tuple(f"{task} {i}" for i in range(items)),
        values={"acc": (1.0,) * items},
        higher_is_better={"acc": True},
        clusters=clusters,
    )


def joined(results: list[TaskResult]) -> tuple[str, ...]:
    parts = tuple(TaskSpec(own.task, {}, own.task) for own in results)
    config = {"aggregate_metric_list": [{"metric": "acc"}]}
    return group_result(TaskSpec("exam", config, "exam", parts), results).clusters


def test_many_members_are_clusters_and_few_keep_their_own() -> None:
    """Of 57 subjects each is drawn as an item is; of two tasks the items, or their clusters, are drawn."""
    assert joined([member(f"subject {i}", 2) for i in range(57)]) == tuple(
        f"subject {i}" for i in range(57) for _ in range(2)
    )
    few = joined([member("a", 3, ("p", "p", "q")), member("b", 2)])
    assert few == ("a: p", "a: p", "a: q", "b: b 0", "b: b 1")
