"""Whatever is wrong with a task is said before a model is loaded, and its identity is what it asks."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.base.errors import BadInput
from tasks.evaluation import task_files
from tasks.evaluation.task_files import check_asked, load_tasks
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import TASKS, write_data, write_task, write_world

SHIPPED = {
    "arc_easy": SimpleNamespace(yaml_path="/x/arc_easy.yaml", cfg={"task": "arc_easy"}, tags=set()),
    "arc_hard": SimpleNamespace(yaml_path="/x/arc_hard.yaml", cfg={"task": "arc_hard"}, tags=set()),
    "arc": SimpleNamespace(yaml_path=None, cfg=None, tags={"arc_easy", "arc_hard"}),
    "all": SimpleNamespace(
        yaml_path="/x/all.yaml", cfg={"group": "all", "task": ["arc", {"task": "own"}]}, tags=set()
    ),
}


@pytest.fixture(autouse=True)
def shipped(monkeypatch):
    """Stand in for lm-eval's 14 000 files, but for the one test that wants them (some 7 s)."""
    monkeypatch.setattr(task_files, "_shipped", lambda: SHIPPED)


def digest(folder, name="spell"):
    return load_tasks([name], folder)[0].digest


class TestFinding:
    def test_tasks_come_in_the_order_asked_for(self, folder):
        assert [spec.name for spec in load_tasks(["likely", "spell"], folder)] == ["likely", "spell"]

    def test_data_is_relative_to_the_task_file(self, folder, tmp_path, monkeypatch):
        """Whatever the working directory is, and however the folder is written."""
        monkeypatch.chdir(tmp_path.parent)
        for include in (folder, Path(tmp_path.name) / "tasks"):
            (spec,) = load_tasks(["spell"], include)
            assert spec.config["dataset_kwargs"]["data_files"] == {
                "test": [str((tmp_path / "data" / "items.jsonl").resolve())]
            }

    @pytest.mark.parametrize(
        ("written", "found"),
        [
            ("../data/items.jsonl", ["items.jsonl"]),
            ("['../data/items.jsonl', '../data/more.jsonl']", ["items.jsonl", "more.jsonl"]),
            ("{test: '../data/*.jsonl'}", {"test": ["items.jsonl", "more.jsonl"]}),
            ("{test: 'hf://datasets/a/b.jsonl'}", {"test": ["b.jsonl"]}),
        ],
        ids=["one", "list", "pattern", "remote"],
    )
    def test_data_files_may_be_written_as_datasets_allows(self, folder, tmp_path, written, found):
        shutil.copy(tmp_path / "data" / "items.jsonl", tmp_path / "data" / "more.jsonl")
        (folder / "own.yaml").write_text(
            f"task: own\ndataset_path: json\ndataset_kwargs: {{data_files: {written}}}\n"
        )
        files = load_tasks(["own"], folder)[0].config["dataset_kwargs"]["data_files"]
        names = [file.rpartition("/")[2] for file in (files["test"] if isinstance(files, dict) else files)]
        assert names == (found["test"] if isinstance(found, dict) else found)
        assert isinstance(files, dict) == isinstance(found, dict)

    def test_includes_and_local_functions_work_as_in_lm_eval(self, folder):
        (folder / "base_yaml").write_text((folder / "spell.yaml").read_text())
        (folder / "helpers.py").write_text("def target(doc):\n    return doc['answer']\n")
        (folder / "child.yaml").write_text(
            "include: base_yaml\ntask: child\ndoc_to_target: !function helpers.target\n"
        )
        (spec,) = load_tasks(["child"], folder)
        assert spec.config["doc_to_target"]({"answer": "7"}) == "7"
        assert spec.config["output_type"] == "generate_until"

    def test_a_broken_neighbour_does_not_disturb(self, folder):
        (folder / "broken.yaml").write_text("task: [")
        assert digest(folder)

    @pytest.mark.slow
    def test_lm_evals_own_tasks_are_found(self, monkeypatch):
        monkeypatch.undo()
        assert load_tasks(["gsm8k"], None)[0].config["dataset_path"] == "openai/gsm8k"
        with pytest.raises(BadInput, match=r"ai2_arc is a group.*: arc_challenge, arc_easy"):
            load_tasks(["ai2_arc"], None)
        with pytest.raises(BadInput, match=r"mmlu is a group.*mmlu_abstract_algebra.* and 49 more"):
            load_tasks(["mmlu"], None)


class TestRefusing:
    def test_an_unknown_name_with_the_nearest_one(self, folder):
        with pytest.raises(BadInput, match=r"unknown task spel; did you mean spell\?"):
            load_tasks(["spel"], folder)
        with pytest.raises(BadInput, match=r"unknown task zzzz; see"):
            load_tasks(["zzzz"], None)

    def test_an_unknown_name_that_a_broken_file_may_define(self, folder):
        (folder / "broken.yaml").write_text("task: [")
        with pytest.raises(BadInput, match=r"broken.yaml: not a usable task file \(ParserError"):
            load_tasks(["broken"], folder)

    def test_groups_and_tags_naming_their_tasks(self):
        with pytest.raises(BadInput, match="arc is a group.*name its tasks: arc_easy, arc_hard"):
            load_tasks(["arc"], None)
        with pytest.raises(BadInput, match="all is a group.*name its tasks: arc_easy, arc_hard, own"):
            load_tasks(["all"], None)

    def test_missing_data_naming_file_key_and_path(self, folder, tmp_path):
        (tmp_path / "data" / "items.jsonl").unlink()
        with pytest.raises(
            BadInput, match=r"spell.yaml: dataset_kwargs.data_files.test names ../data/items.jsonl, but"
        ):
            load_tasks(["spell"], folder)

    def test_a_function_that_is_not_there(self, folder):
        write_task(folder, "own", "process_docs: !function helpers.no\n")
        with pytest.raises(BadInput, match=r"own.yaml: not a usable task file \(ImportError.*helpers"):
            load_tasks(["own"], folder)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(BadInput, match=r"evaluate.include_path: .*nowhere is not a directory"):
            load_tasks(["spell"], tmp_path / "nowhere")


class TestIdentity:
    def test_it_does_not_depend_on_where_the_folder_lies(self, folder, tmp_path):
        assert digest(folder) == digest(write_world(tmp_path / "elsewhere"))

    def test_it_changes_with_the_data_the_question_and_the_functions(self, folder, tmp_path):
        (folder / "helpers.py").write_text("def target(doc):\n    return doc['answer']\n")
        write_task(folder, "own", "doc_to_target: !function helpers.target\n")
        seen = {digest(folder, "own")}
        (folder / "helpers.py").write_text("def target(doc):\n    return doc['answer'] + ' '\n")
        seen.add(digest(folder, "own"))
        write_data(tmp_path, count=13)
        seen.add(digest(folder, "own"))
        write_task(folder, "own", "doc_to_target: !function helpers.target\ntarget_delimiter: ''\n")
        seen.add(digest(folder, "own"))
        assert len(seen) == 4


class TestAskedFor:
    def check(self, folder, primary, **chosen):
        specs = load_tasks(list(TASKS), folder)
        check_asked(specs, EvaluateParams(tasks=tuple(TASKS), primary=primary, **chosen))

    @pytest.mark.parametrize("primary", ["likely/nll", "likely/acc", "choose/nll", "spell/exact_match"])
    def test_what_a_task_may_report_passes(self, folder, primary):
        self.check(folder, primary)

    def test_other_tasks_are_refused(self, folder):
        with pytest.raises(BadInput, match=r"evaluate.primary: other/acc .* \(spell, likely, choose\)"):
            self.check(folder, "other/acc")
        with pytest.raises(BadInput, match=r"evaluate.margins: other/acc"):
            self.check(folder, "likely/nll", margins={"other/acc": 0.1})

    @pytest.mark.parametrize("primary", ["likely/perplexity", "choose/acc_norm"])
    def test_metrics_that_the_file_excludes_are_refused(self, folder, primary):
        with pytest.raises(BadInput, match="does not report .*, only acc, nll"):
            self.check(folder, primary)

    def test_what_the_file_does_not_tell_passes(self):
        spec = TaskSpec("t", {"output_type": "generate_until"}, "d")
        check_asked([spec], EvaluateParams(tasks=("t",), primary="t/whatever"))
