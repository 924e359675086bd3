"""Asked in two parts, items say what they say asked at once: of tasks, groups and clusters."""

from pathlib import Path

import pytest

from tasks.base.model_files import ModelFiles
from tasks.evaluation.first_items import FEWEST_FIRST, in_two, of_both_parts
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_files import load_tasks
from tasks.evaluation.task_spec import Split
from tasks.parameters.evaluation import EvaluateParams
from tests.support.grouped_tasks import write_groups
from tests.support.marks import slow
from tests.support.tiny_world import write_data

COUNT = 240


def split_of(folder: Path, *names: str, **chosen: object) -> Split:
    chosen = {"tasks": names, "primary": f"{names[0]}/acc", "device": "cpu", "batch_size": 128, **chosen}
    return Split(EvaluateParams.model_validate(chosen), load_tasks(names, folder))


def ask(model: Path, split: Split) -> dict[str, TaskResult]:
    return evaluate_model(lambda: ModelFiles(model), "digest", split.tasks, split.params)


def values_by_item(result: TaskResult) -> dict[str, list[float]]:
    columns = [*result.values.values(), *([result.weights] if result.weights else [])]
    return {item: list(values) for item, values in zip(result.items, zip(*columns, strict=True), strict=True)}


def same(one: TaskResult, other: TaskResult) -> bool:
    """Say whether items, their values and what they belong to are the same, in any order."""
    mine, theirs = values_by_item(one), values_by_item(other)
    belongs = [
        dict(zip(result.items, result.clusters or result.items, strict=True)) for result in (one, other)
    ]
    return (
        mine.keys() == theirs.keys()
        and belongs[0] == belongs[1]
        and all(mine[item] == pytest.approx(theirs[item], rel=1e-5) for item in mine)
    )


@pytest.mark.parametrize("cluster", [None, slow("question")])
@pytest.mark.parametrize(("names", "by_size"), [(("likely", "choose"), True), (("exam", "hard"), False)])
def test_joined_parts_are_the_whole(
    names: tuple[str, ...], by_size: bool, cluster: str | None, tiny: Path, folder: Path
) -> None:
    write_groups(folder, by_size)
    write_data(folder.parent, COUNT)
    split = split_of(folder, *names, cluster=cluster)
    whole, parts = ask(tiny, split), in_two(split, 0.25)
    assert parts
    first, rest = (ask(tiny, part) for part in parts)
    for name, result in of_both_parts(split, first, rest).items():
        assert same(result, whole[name])
        assert not set(first[name].items) & set(rest[name].items)
        if cluster:
            assert not set(first[name].clusters) & set(rest[name].clusters)
    share = len(first[names[-1]].items) / len(whole[names[-1]].items)
    assert 0.1 < share < 0.45


def test_nothing_is_divided_where_it_says_little(folder: Path) -> None:
    assert in_two(split_of(folder, "likely"), 0.9) is None
    write_data(folder.parent, COUNT)
    assert in_two(split_of(folder, "likely"), 1) is None
    assert in_two(split_of(folder, "likely", limit=300), 0.5) is None
    assert in_two(split_of(folder, "likely"), 0.5)
    assert in_two(split_of(folder, "likely"), FEWEST_FIRST / 2 / COUNT) is None
