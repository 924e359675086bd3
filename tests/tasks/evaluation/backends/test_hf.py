"""What transformers answers is what the model itself says; what cannot be trusted is not loaded."""

import gc
import json
import shutil
import weakref

import pytest
import torch

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput, LorelineError
from tasks.evaluation import measure
from tasks.evaluation.backends import hf
from tests.support.measuring import run
from tests.support.tiny_world import LETTERS, rows


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


def decode(model, ids):
    text = "".join({0: "", 1: "\n"}.get(token, LETTERS[token - 2]) for token in ids)
    return text.partition("\n")[0]


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


class TestRefusing:
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

    def test_a_device_that_is_not_there(self, tiny, folder):
        with pytest.raises(BadInput, match=r"evaluate.device: cuda:99 cannot be used here"):
            run(tiny, folder, device="cuda:99")


class TestMemory:
    def test_batches_that_do_not_fit_are_halved(self, tiny, folder, monkeypatch, caplog):
        real, tried = measure._run, []

        def small(lm, task, params):
            tried.append(lm.batch_size)
            if lm.batch_size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(lm, task, params)

        whole = run(tiny, folder, ("likely",), "likely/nll", batch_size=9)
        shutil.rmtree(state_dir())
        monkeypatch.setattr(measure, "_run", small)
        halved = run(tiny, folder, ("likely",), "likely/nll", batch_size=9)
        assert tried == [9, 4, 2]
        assert "batches of 9 do not fit" in caplog.text
        assert halved["likely"].values["nll"] == pytest.approx(whole["likely"].values["nll"], abs=1e-4)

    def test_one_item_that_does_not_fit_is_said(self, tiny, folder, monkeypatch):
        def full(*_):
            raise torch.OutOfMemoryError

        monkeypatch.setattr(measure, "_run", full)
        with pytest.raises(LorelineError, match="not even one item fits in GPU memory"):
            run(tiny, folder)

    def test_a_model_is_gone_before_another_one_comes(self, tiny, folder, monkeypatch):
        """Not when the garbage collector happens to run: two models may not fit beside each other."""
        models = []
        real = hf._load

        def load(directory, device):
            model, tokenizer = real(directory, device)
            model.circle = [model]  # as hooks and caches make them
            models.append(weakref.ref(model))
            return model, tokenizer

        monkeypatch.setattr(hf, "_load", load)
        gc.disable()
        try:
            run(tiny, folder)
            assert [model() for model in models] == [None]
        finally:
            gc.enable()
