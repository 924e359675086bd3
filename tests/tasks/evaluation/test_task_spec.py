"""A task file is read as lm-eval reads it, and its identity is what it asks."""

import shutil
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.evaluation.task_files import load_tasks
from tasks.evaluation.task_spec import task_spec
from tests.support.tiny_world import write_data, write_task, write_world


def digest(folder, name="spell"):
    return load_tasks([name], folder)[0].digest


class TestReading:
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

    def test_it_changes_with_the_commit_of_a_data_set_of_the_hub(self, folder):
        config = {"dataset_path": "org/data", "output_type": "multiple_choice"}
        one, other = (task_spec("t", config, folder, lambda name, c=c: c) for c in ("1" * 40, "2" * 40))
        assert one.config["dataset_kwargs"]["revision"] == "1" * 40
        assert one.digest != other.digest

    def test_a_revision_in_the_task_file_counts_and_nobody_is_asked(self, folder):
        def commit_of(name):
            raise AssertionError(name)

        pinned = {"dataset_path": "org/data", "dataset_kwargs": {"revision": "v1"}}
        other = {"dataset_path": "org/data", "dataset_kwargs": {"revision": "v2"}}
        specs = [task_spec("t", config, folder, commit_of) for config in (pinned, other)]
        assert [spec.config["dataset_kwargs"]["revision"] for spec in specs] == ["v1", "v2"]
        assert specs[0].digest != specs[1].digest
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": "hf://datasets/a/b.jsonl"}}
        task_spec("t", files, folder, commit_of)
        task_spec("t", {"dataset_path": str(folder)}, folder, commit_of)
