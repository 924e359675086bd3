"""Every model is asked the same, and nothing is measured twice or without need."""

import logging
import shutil

import pytest

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput, LorelineError
from tasks.base.model_files import ModelFiles
from tasks.evaluation import lm_eval_task, measure
from tasks.evaluation.backends import hf
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.task_files import load_tasks
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams
from tests.support.measuring import ALL, run
from tests.support.tiny_world import TASKS, write_data, write_model, write_task


class TestNumbers:
    def test_items_have_identities_of_their_own_even_where_questions_repeat(self, tiny, folder):
        for result in run(tiny, folder).values():
            assert len(set(result.items)) == len(result.items) == 12

    def test_two_models_are_asked_the_same(self, tiny, folder, tmp_path):
        other = write_model(tmp_path / "other", seed=1)
        params = EvaluateParams(tasks=ALL, primary="likely/nll", device="cpu")
        specs = load_tasks(ALL, folder)
        one = evaluate_model(lambda: ModelFiles(tiny), "one", specs, params)
        two = evaluate_model(lambda: ModelFiles(other), "two", specs, params)
        assert all(one[name].items == two[name].items for name in ALL)
        assert one["likely"].values != two["likely"].values

    def test_a_limit_takes_the_first_items(self, tiny, folder):
        whole, part = run(tiny, folder), run(tiny, folder, limit=5)
        for name in ALL:
            assert part[name].items == whole[name].items[:5]

    def test_a_share_takes_the_first_half(self, tiny, folder):
        whole, part = run(tiny, folder), run(tiny, folder, limit=0.5)
        for name in ALL:
            assert part[name].items == whole[name].items[:6]

    def test_the_result_does_not_depend_on_what_else_runs(self, tiny, folder, tmp_path, monkeypatch):
        """Few-shot examples are drawn at random, but from a seed that is set for each task."""
        for name in ("likely", "choose"):
            path = write_task(
                folder, name, TASKS[name].replace("output_type", "fewshot_split: test\noutput_type")
            )
            path.write_text(path.read_text().replace("num_fewshot: 0", "num_fewshot: 2"))
        monkeypatch.setenv("LORELINE_HOME", str(tmp_path / "alone"))
        alone = run(tiny, folder, ("choose",), "choose/nll")
        monkeypatch.setenv("LORELINE_HOME", str(tmp_path / "together"))
        together = run(tiny, folder, ("likely", "choose"), "choose/nll")
        monkeypatch.setenv("LORELINE_HOME", str(tmp_path / "seed"))
        reseeded = run(tiny, folder, ("choose",), "choose/nll", seed=1)
        assert together["choose"] == alone["choose"]
        assert reseeded["choose"].items != alone["choose"].items


class TestReuse:
    def test_the_second_time_no_model_is_needed(self, tiny, folder, tmp_path):
        model = tmp_path / "model"
        shutil.copytree(tiny, model)
        first = run(model, folder)
        shutil.rmtree(model)
        assert run(model, folder) == first

    def test_only_what_is_missing_is_measured_with_one_load(self, tiny, folder, loaded, monkeypatch):
        measured = []
        real = measure._run
        monkeypatch.setattr(
            measure, "_run", lambda *given: measured.append(given[1].config.task) or real(*given)
        )
        run(tiny, folder, ("likely",), "likely/nll")
        run(tiny, folder)
        assert measured == ["likely", "spell", "choose"]
        assert len(loaded) == 2

    @pytest.mark.parametrize(
        "chosen",
        [
            {"limit": 5},
            {"limit": 0.5},
            {"batch_size": 8},
            {"batch_size": "auto"},
            {"seed": 1},
            {"num_fewshot": 1},
            {"system_instruction": "Add."},
            {"generation": {"max_gen_toks": 2}},
            {"cluster": "question"},
        ],
    )
    def test_another_setting_is_another_measurement(self, tiny, folder, loaded, chosen):
        run(tiny, folder)
        run(tiny, folder, **chosen)
        assert len(loaded) == 2

    def test_results_in_the_weights_own_precision_are_not_taken(self, monkeypatch):
        """The name of the file is what 0.1.0 made of these settings, with bfloat16 likelihoods in it."""
        versions = {"lm_eval": "0.4.13", "transformers": "5.23.0", "torch": "2.13.0", "peft": "0.21.2"}
        for module in (measure, hf):
            monkeypatch.setattr(module, "version", versions.__getitem__)
        params = EvaluateParams(tasks=("t",), primary="t/nll", device="cpu", limit=5)
        (path,) = measure.result_paths("model", [TaskSpec("t", {}, "task")], params).values()
        assert path.name != "6be43496e830bcbcec73ff29ed9fcdf2b37322a59fc77ff675011a90fc7e05c2.json"
        assert hf.HuggingFace.settings(params)["softmax_dtype"] == "float32"

    def test_a_setting_of_the_verdict_is_not(self, tiny, folder, loaded):
        run(tiny, folder)
        run(tiny, folder, primary="likely/nll", margin=0.5, min_gain=0.1)
        assert len(loaded) == 1

    def test_other_data_is_another_measurement(self, tiny, folder, tmp_path):
        assert len(run(tiny, folder)["spell"].items) == 12
        write_data(tmp_path, count=13)
        assert len(run(tiny, folder)["spell"].items) == 13

    @pytest.mark.parametrize("damage", [lambda text: text[:-40], lambda text: text.replace("0.0", "1.0", 1)])
    def test_a_damaged_result_is_measured_again(self, tiny, folder, loaded, damage):
        first = run(tiny, folder, ("spell",))
        (path,) = (state_dir() / "evaluations").glob("*.json")
        whole = path.read_text()
        path.write_text(damage(whole))
        assert run(tiny, folder, ("spell",)) == first
        assert path.read_text() == whole
        assert len(loaded) == 2

    def test_what_was_measured_before_a_failure_is_kept(self, tiny, folder, monkeypatch):
        real = measure._run

        def fail(lm, task, chosen, params):
            if task.config.task == "choose":
                raise RuntimeError("lost\nsecond line")
            return real(lm, task, chosen, params)

        monkeypatch.setattr(measure, "_run", fail)
        with pytest.raises(LorelineError, match=r"on choose: lm-eval failed \(RuntimeError: lost\); mend"):
            run(tiny, folder)
        assert len(list((state_dir() / "evaluations").glob("*.json"))) == 2


class TestRefusing:
    def test_a_metric_of_another_task_before_anything_is_loaded(self, tiny, folder, loaded):
        with pytest.raises(BadInput, match=r"evaluate.primary: word_problems_nll/nll is of a task"):
            run(tiny, folder, primary="word_problems_nll/nll")
        assert not loaded

    def test_a_metric_that_was_not_reported_after_the_first_model(self, tiny, folder):
        with pytest.raises(
            BadInput, match=r"no task reports spell/rouge; take one of spell/exact_match, likely/acc"
        ):
            run(tiny, folder, primary="spell/rouge")

    def test_data_that_cannot_be_read_before_the_model_is_loaded(self, tiny, folder, tmp_path, loaded):
        (tmp_path / "data" / "items.jsonl").write_text('{"question": ')
        with pytest.raises(BadInput, match="spell: lm-eval cannot set the task up"):
            run(tiny, folder)
        assert not loaded

    def test_a_task_that_would_run_what_the_model_writes(self, tiny, folder, loaded):
        write_task(folder, "own", TASKS["spell"] + "unsafe_code: true\n")
        with pytest.raises(BadInput, match="own would run code that the model writes"):
            run(tiny, folder, ("own",))
        assert not loaded

    def test_a_model_that_answers_with_nan(self, tiny, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        model = tmp_path / "model"
        shutil.copytree(tiny, model)
        weights = load_file(model / "model.safetensors")
        weights["model.norm.weight"][0] = float("nan")
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BadInput, match=r"likely/nll: is nan on item 0"):
            run(model, folder, ("likely",), "likely/nll")


class TestManners:
    def test_the_libraries_are_quiet_and_get_their_voice_back(self, tiny, folder, capfd):
        before = [logging.getLogger(name).level for name in lm_eval_task.CHATTY]
        run(tiny, folder)
        assert capfd.readouterr() == ("", "")
        assert [logging.getLogger(name).level for name in lm_eval_task.CHATTY] == before

    def test_the_model_directory_is_not_written_to(self, tiny, folder):
        before = {path.name: path.stat().st_mtime_ns for path in [tiny, *tiny.iterdir()]}
        run(tiny, folder)
        assert {path.name: path.stat().st_mtime_ns for path in [tiny, *tiny.iterdir()]} == before
