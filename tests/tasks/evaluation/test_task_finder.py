"""Names stand for what lm-eval builds of them: tasks, groups of two levels, tags, and what groups override."""

from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.evaluation import task_files
from tasks.evaluation.task_files import check_asked, load_tasks
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams
from tests.support.grouped_tasks import CHOOSE, write_groups
from tests.support.tiny_world import write_task

AGGREGATE = "aggregate_metric_list: [{metric: acc}]\n"


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out lm-eval's 14 000 files, which take seconds."""
    monkeypatch.setattr(task_files, "_shipped", dict)


def load(folder: Path, *names: str) -> dict[str, tuple[str, ...]]:
    return {spec.name: tuple(m.name for m in spec.members) for spec in load_tasks(names, folder)}


def test_a_group_has_the_tasks_of_the_groups_in_it(folder: Path) -> None:
    write_groups(folder, True)
    assert load(folder, "exam") == {"exam": ("easy", "hard", "letters")}


def test_a_tag_and_a_group_without_metrics_stand_for_what_is_in_them(folder: Path) -> None:
    write_groups(folder, True)
    assert load(folder, "sciences_tasks") == {"easy": (), "hard": ()}
    assert load(folder, "both") == {"exam": ("easy", "hard", "letters"), "spell": ()}


def test_so_does_a_group_none_of_whose_metrics_all_its_tasks_have(folder: Path) -> None:
    """As lm-eval's leaderboard: each of its metrics is one of a few tasks."""
    write_groups(folder, True)
    metrics = "aggregate_metric_list: [{metric: acc}, {metric: exact_match}]\n"
    (folder / "board.yaml").write_text(f"group: board\ntask: [exam, spell]\n{metrics}")
    assert load(folder, "board") == {"exam": ("easy", "hard", "letters"), "spell": ()}
    (folder / "board.yaml").write_text(f"group: board\ntask: [exam, likely]\n{metrics}")
    assert load(folder, "board") == {"board": ("easy", "hard", "letters", "likely")}


def test_what_is_named_twice_comes_once(folder: Path) -> None:
    write_groups(folder, True)
    assert list(load(folder, "easy", "sciences_tasks", "exam", "both")) == ["easy", "hard", "exam", "spell"]
    (folder / "twice.yaml").write_text(f"group: twice\ntask: [sciences, exam, easy]\n{AGGREGATE}")
    assert load(folder, "twice") == {"twice": ("easy", "hard", "letters")}


def test_a_group_overrides_what_its_tasks_say_and_an_item_what_the_group_says(folder: Path) -> None:
    """As lm-eval does: the same manager builds the same configurations."""
    from lm_eval.tasks import TaskManager

    write_groups(folder, True)
    (folder / "own.yaml").write_text(
        "group: own\nnum_fewshot: 1\ntarget_delimiter: '='\n"
        f"task:\n  - easy\n  - {{task: hard, num_fewshot: 2}}\n  - {{group: inner, task: [letters], {AGGREGATE.strip()}}}\n"
        f"{AGGREGATE}"
    )
    (own,) = load_tasks(["own"], folder)
    ours = {spec.name: (spec.config["num_fewshot"], spec.config["target_delimiter"]) for spec in own.members}
    assert ours == {"easy": (1, "="), "hard": (2, "="), "letters": (1, "=")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        built = TaskManager(include_path=str(folder), include_defaults=False).load(["own"])["tasks"]
    assert ours == {
        name: (task.config.num_fewshot, task.config.target_delimiter) for name, task in built.items()
    }


def test_two_settings_of_one_task_need_two_names(folder: Path) -> None:
    write_groups(folder, True)
    (folder / "own.yaml").write_text("group: own\nnum_fewshot: 1\ntask: [easy]\n")
    assert load(folder, "own") == load(folder, "easy") == {"easy": ()}
    with pytest.raises(BadInput, match="two tasks are called easy; rename one"):
        load_tasks(["own", "easy"], folder)


def test_a_task_defined_in_a_group_is_named_after_it(folder: Path) -> None:
    text = CHOOSE.replace("metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n", "")
    inline = "".join(f"    {line}\n" for line in text.splitlines())
    data = "    dataset_path: json\n    dataset_kwargs: {data_files: {test: ../data/items.jsonl}}\n"
    (folder / "own.yaml").write_text(f"group: own\ntask:\n  - task: new\n{inline}{data}{AGGREGATE}")
    assert load(folder, "own") == {"own": ("own::new",)}


def test_the_digest_of_a_group_is_that_of_its_tasks_and_weights(folder: Path) -> None:
    digests = set()
    for by_size in (True, False):
        digests.add(load_tasks(["exam"], write_groups(folder, by_size))[0].digest)
    write_task(folder, "letters", CHOOSE)
    digests.add(load_tasks(["exam"], folder)[0].digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [("[own]", "the group own contains itself"), ("[nothing]", "unknown task nothing")],
)
def test_what_cannot_be_built_is_named(folder: Path, listed: str, sentence: str) -> None:
    (folder / "own.yaml").write_text(f"group: own\ntask: {listed}\n")
    with pytest.raises(BadInput, match=sentence):
        load_tasks(["own"], folder)


def test_a_metric_that_a_group_cannot_have_is_refused_before_any_model(folder: Path) -> None:
    def check(primary: str) -> list[TaskSpec]:
        specs = load_tasks(["exam"], write_groups(folder, True))
        check_asked(specs, EvaluateParams(tasks=("exam",), primary=primary))
        return specs

    assert check("exam/acc")
    assert check("exam/nll")
    with pytest.raises(BadInput, match="exam does not report acc_norm, only acc, nll"):
        check("exam/acc_norm")


@pytest.mark.parametrize(
    "name", ["{folder}/spell.yaml", "spell.yaml", "../tasks/spell", "file://{folder}/spell"]
)
def test_the_path_of_a_file_names_no_task(folder: Path, name: str) -> None:
    """Names come from the machine's own folder, whatever the parameters of a flow run say."""
    write_groups(folder, True)
    with pytest.raises(BadInput, match="unknown task"):
        load(folder, name.format(folder=folder))
