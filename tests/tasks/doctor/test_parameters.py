from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.doctor.parameters import check_chat_template, check_evaluation, check_source
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params
from tests.support.tiny_world import write_world


def params(source: str | tuple[str, ...], task: str = "likely", include: Path | None = None) -> Params:
    evaluate = EvaluateParams(tasks=(task,), primary=f"{task}/acc", include_path=include and str(include))
    return Params(fetch=FetchParams(source=source), evaluate=evaluate)


def test_the_run_that_is_named_is_looked_for(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    run = str(make_checkpoint(10).parent)
    assert check_source(params(run))[0].found == f"{run}, checkpoints: 1"
    (finding,) = check_source(params(str(tmp_path / "none")))
    assert (finding.level, finding.found) == ("warning", f"{tmp_path / 'none'}: no such directory")


def test_every_run_of_a_list_is_looked_for(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    run = str(make_checkpoint(10).parent)
    found = check_source(params((run, "hf://org/name", str(tmp_path / "none"))))
    assert [(each.level, each.found) for each in found] == [
        ("ok", f"{run}, checkpoints: 1"),
        ("ok", "hf://org/name (not asked)"),
        ("warning", f"{tmp_path / 'none'}: no such directory"),
    ]


def test_unknown_tasks_are_a_problem(tmp_path: Path) -> None:
    include = write_world(tmp_path / "world")
    found = check_evaluation(params("runs/x", "likely", include))
    assert [(each.subject, each.level) for each in found] == [
        ("evaluate.tasks", "ok"),
        ("evaluate.include_path", "ok"),
    ]
    assert "can run Python" in found[1].found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.evaluation.task_files._shipped", dict)  # 14 000 files, which are not in question
        (finding,) = check_evaluation(params("runs/x", "likly", include))
    assert (finding.level, "did you mean likely?" in finding.remedy) == ("problem", True)


def test_tasks_that_come_with_a_run_to_be_made_are_no_problem(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "demo"
    assert check_evaluation(params(str(run), include=run / "tasks"))[0].level == "warning"
    run.mkdir(parents=True)
    assert check_evaluation(params(str(run), include=run / "tasks"))[0].level == "problem"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "x"}]}'),
    ],
)
def test_a_chat_model_that_is_not_asked_as_one_is_warned_of(
    make_checkpoint: Callable[..., Path], name: str, text: str
) -> None:
    (make_checkpoint(10) / name).write_text(text)
    asked = params(str(make_checkpoint(9).parent))
    (finding,) = check_chat_template(asked)
    assert (finding.level, "set evaluate.chat_template: true" in finding.remedy) == ("warning", True)
    applied = asked.evaluate.model_copy(update={"chat_template": True})
    assert not check_chat_template(asked.model_copy(update={"evaluate": applied}))


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"chat_template": null}'])
def test_other_models_are_not(make_checkpoint: Callable[..., Path], text: str) -> None:
    checkpoint = make_checkpoint(10)
    (checkpoint / "tokenizer_config.json").write_text(text)
    assert not check_chat_template(params(str(checkpoint.parent)))
    assert not check_chat_template(params("hf://org/name"))
