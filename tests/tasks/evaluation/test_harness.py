"""Numbers per item are what the model itself says, and nothing is computed twice or without need."""

import json
import logging
import shutil

import pytest
import torch
from tasks.parameters.evaluation import EvaluateParams

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput, LorelineError
from tasks.evaluation import harness
from tasks.evaluation.harness import evaluate_model
from tasks.evaluation.task_files import load_tasks
from tests.support.tiny_world import LETTERS, TASKS, rows, write_data, write_model, write_task

ALL = tuple(TASKS)


def run(model, folder, tasks=ALL, primary=None, **chosen):
    chosen = {"device": "cpu", "batch_size": 4, **chosen}
    params = EvaluateParams(tasks=tasks, primary=primary or f"{tasks[0]}/exact_match", **chosen)
    return evaluate_model(lambda: model, "digest", load_tasks(tasks, folder), params)


@pytest.fixture
def loads(monkeypatch):
    """Count how often the model is loaded."""
    counted = []
    real = harness._load
    monkeypatch.setattr(harness, "_load", lambda *given: counted.append(given) or real(*given))
    return counted


class Independent:
    """The same model by plain transformers, one item at a time."""

    def __init__(self, directory):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(directory).eval()
        self.encode = AutoTokenizer.from_pretrained(directory).encode

    def target(self, prompt, target):
        """Negative log-likelihood of the target, and whether greedy decoding would give it."""
        start, ids = len(self.encode(prompt)), self.encode(prompt + target)
        with torch.no_grad():
            logs = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), -1)
        places = range(start, len(ids))
        nll = -sum(logs[place - 1, ids[place]].item() for place in places)
        return nll, all(logs[place - 1].argmax() == ids[place] for place in places)


class TestNumbers:
    def test_nll_and_acc_of_targets_equal_a_forward_pass_of_each(self, tiny, folder):
        result = run(tiny, folder, ("likely",), "likely/nll")["likely"]
        model = Independent(tiny)
        expected = [model.target(f"{row['question']}:", f" {row['answer']}\n") for row in rows(12)]
        assert result.values["nll"] == pytest.approx([nll for nll, _ in expected], abs=1e-4)
        assert result.values["acc"] == tuple(float(greedy) for _, greedy in expected)
        assert result.higher_is_better == {"acc": True, "nll": False}

    def test_nll_of_a_choice_is_that_of_the_right_one(self, tiny, folder):
        result = run(tiny, folder, ("choose",), "choose/nll")["choose"]
        model = Independent(tiny)
        choices = [
            [model.target(f"{row['question']}:", f" {choice}")[0] for choice in row["choices"]]
            for row in rows(12)
        ]
        assert result.values["nll"] == pytest.approx([each[1] for each in choices], abs=1e-4)
        assert result.values["acc"] == tuple(float(min(each) == each[1]) for each in choices)

    def test_greedy_answers_are_scored_by_exact_match(self, tiny, folder, tmp_path):
        """Asked for what the model says anyway, it is always right."""
        model = Independent(tiny)
        said = []
        for row in rows(12):
            ids = model.encode(f"{row['question']}:")
            with torch.no_grad():
                out = model.model.generate(
                    torch.tensor([ids]), max_new_tokens=3, do_sample=False, pad_token_id=1
                )
            said.append(decode(model, out[0, len(ids) :].tolist()))
        half = [
            {**row, "answer": text if place % 2 else "?"}
            for place, (row, text) in enumerate(zip(rows(12), said, strict=True))
        ]
        (tmp_path / "data" / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in half))
        result = run(tiny, folder, ("spell",))["spell"]
        assert result.values["exact_match"] == (0.0, 1.0) * 6

    def test_items_have_identities_of_their_own_even_where_questions_repeat(self, tiny, folder):
        for result in run(tiny, folder).values():
            assert len(set(result.items)) == len(result.items) == 12

    def test_two_models_are_asked_the_same(self, tiny, folder, tmp_path):
        other = write_model(tmp_path / "other", seed=1)
        params = EvaluateParams(tasks=ALL, primary="likely/nll", device="cpu")
        specs = load_tasks(ALL, folder)
        one = evaluate_model(lambda: tiny, "one", specs, params)
        two = evaluate_model(lambda: other, "two", specs, params)
        assert all(one[name].items == two[name].items for name in ALL)
        assert one["likely"].values != two["likely"].values

    def test_a_limit_takes_the_first_items(self, tiny, folder):
        whole, part = run(tiny, folder), run(tiny, folder, limit=5)
        for name in ALL:
            assert part[name].items == whole[name].items[:5]

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


def decode(model, ids):
    text = "".join({0: "", 1: "\n"}.get(token, LETTERS[token - 2]) for token in ids)
    return text.partition("\n")[0]


class TestReuse:
    def test_the_second_time_no_model_is_needed(self, tiny, folder, tmp_path):
        model = tmp_path / "model"
        shutil.copytree(tiny, model)
        first = run(model, folder)
        shutil.rmtree(model)
        assert run(model, folder) == first

    def test_only_what_is_missing_is_measured_with_one_load(self, tiny, folder, loads, monkeypatch):
        measured = []
        real = harness._run
        monkeypatch.setattr(
            harness, "_run", lambda *given: measured.append(given[2].config.task) or real(*given)
        )
        run(tiny, folder, ("likely",), "likely/nll")
        run(tiny, folder)
        assert measured == ["likely", "spell", "choose"]
        assert len(loads) == 2

    @pytest.mark.parametrize("chosen", [{"limit": 5}, {"batch_size": 8}, {"seed": 1}, {"num_fewshot": 1}])
    def test_another_setting_is_another_measurement(self, tiny, folder, loads, chosen):
        run(tiny, folder)
        run(tiny, folder, **chosen)
        assert len(loads) == 2

    def test_a_setting_of_the_verdict_is_not(self, tiny, folder, loads):
        run(tiny, folder)
        run(tiny, folder, primary="likely/nll", margin=0.5, min_gain=0.1)
        assert len(loads) == 1

    def test_other_data_is_another_measurement(self, tiny, folder, tmp_path, loads):
        assert len(run(tiny, folder)["spell"].items) == 12
        write_data(tmp_path, count=13)
        assert len(run(tiny, folder)["spell"].items) == 13

    @pytest.mark.parametrize("damage", [lambda text: text[:-40], lambda text: text.replace("0.0", "1.0", 1)])
    def test_a_damaged_result_is_measured_again(self, tiny, folder, loads, damage):
        first = run(tiny, folder, ("spell",))
        (path,) = (state_dir() / "evaluations").iterdir()
        whole = path.read_text()
        path.write_text(damage(whole))
        assert run(tiny, folder, ("spell",)) == first
        assert path.read_text() == whole
        assert len(loads) == 2

    def test_what_was_measured_before_a_failure_is_kept(self, tiny, folder, monkeypatch):
        real = harness._run

        def fail(model, tokenizer, task, *rest):
            if task.config.task == "choose":
                raise RuntimeError("lost\nsecond line")
            return real(model, tokenizer, task, *rest)

        monkeypatch.setattr(harness, "_run", fail)
        with pytest.raises(LorelineError, match=r"on choose: lm-eval failed \(RuntimeError: lost\)$"):
            run(tiny, folder)
        assert len(list((state_dir() / "evaluations").iterdir())) == 2


class TestRefusing:
    def test_a_metric_of_another_task_before_anything_is_loaded(self, tiny, folder, loads):
        with pytest.raises(BadInput, match=r"evaluate.primary: word_problems_nll/nll is of a task"):
            run(tiny, folder, primary="word_problems_nll/nll")
        assert not loads

    def test_a_metric_that_was_not_reported_after_the_first_model(self, tiny, folder):
        with pytest.raises(
            BadInput, match=r"no task reports spell/rouge; take one of spell/exact_match, likely/acc"
        ):
            run(tiny, folder, primary="spell/rouge")

    def test_data_that_cannot_be_read_before_the_model_is_loaded(self, tiny, folder, tmp_path, loads):
        (tmp_path / "data" / "items.jsonl").write_text('{"question": ')
        with pytest.raises(BadInput, match="spell: lm-eval cannot set the task up"):
            run(tiny, folder)
        assert not loads

    def test_a_task_that_would_run_what_the_model_writes(self, tiny, folder, loads):
        write_task(folder, "own", TASKS["spell"] + "unsafe_code: true\n")
        with pytest.raises(BadInput, match="own would run code that the model writes"):
            run(tiny, folder, ("own",))
        assert not loads

    def test_a_directory_that_is_no_model(self, folder, tmp_path):
        with pytest.raises(BadInput, match=r"nothing: cannot be loaded as a causal language model"):
            run(tmp_path / "nothing", folder)

    def test_a_model_with_missing_weights(self, tiny, folder, tmp_path):
        """Transformers would make them up."""
        from safetensors.torch import load_file, save_file

        model = tmp_path / "model"
        shutil.copytree(tiny, model)
        weights = load_file(model / "model.safetensors")
        del weights["model.norm.weight"]
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BadInput, match=r"weights are missing, among them model.norm.weight"):
            run(model, folder)

    def test_a_model_that_answers_with_nan(self, tiny, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        model = tmp_path / "model"
        shutil.copytree(tiny, model)
        weights = load_file(model / "model.safetensors")
        weights["model.norm.weight"][0] = float("nan")
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BadInput, match=r"likely/nll is nan on item 0"):
            run(model, folder, ("likely",), "likely/nll")

    def test_a_device_that_is_not_there(self, tiny, folder):
        with pytest.raises(BadInput, match=r"evaluate.device: cuda:99 cannot be used here"):
            run(tiny, folder, device="cuda:99")


class TestManners:
    def test_batches_that_do_not_fit_are_halved(self, tiny, folder, monkeypatch, caplog):
        real, tried = harness._run, []

        def small(model, tokenizer, task, params, batch_size):
            tried.append(batch_size)
            if batch_size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(model, tokenizer, task, params, batch_size)

        whole = run(tiny, folder, ("likely",), "likely/nll", batch_size=9)
        shutil.rmtree(state_dir())
        monkeypatch.setattr(harness, "_run", small)
        halved = run(tiny, folder, ("likely",), "likely/nll", batch_size=9)
        assert tried == [9, 4, 2]
        assert "batches of 9 do not fit" in caplog.text
        assert halved["likely"].values["nll"] == pytest.approx(whole["likely"].values["nll"], abs=1e-4)

    def test_one_item_that_does_not_fit_is_said(self, tiny, folder, monkeypatch):
        def full(*_):
            raise torch.OutOfMemoryError

        monkeypatch.setattr(harness, "_run", full)
        with pytest.raises(LorelineError, match="not even one item fits in GPU memory"):
            run(tiny, folder)

    def test_the_libraries_are_quiet_and_get_their_voice_back(self, tiny, folder, capfd):
        before = [logging.getLogger(name).level for name in harness.CHATTY]
        run(tiny, folder)
        assert capfd.readouterr() == ("", "")
        assert [logging.getLogger(name).level for name in harness.CHATTY] == before

    def test_the_model_directory_is_not_written_to(self, tiny, folder):
        before = {path.name: path.stat().st_mtime_ns for path in [tiny, *tiny.iterdir()]}
        run(tiny, folder)
        assert {path.name: path.stat().st_mtime_ns for path in [tiny, *tiny.iterdir()]} == before
