"""What transformers answers is what the model itself says; what cannot be trusted is not loaded."""

import gc
import json
import shutil
import weakref
from contextlib import contextmanager
from functools import partial

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


def widened(model, directory, vocabulary):
    """Write a model with more tokens than its tokenizer has."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(model, directory)
    config = AutoConfig.from_pretrained(model, vocab_size=vocabulary)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def most_reserved(work):
    """Return the bytes of a GPU that some work takes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_reserved()


@contextmanager
def gpu_memory(size):
    """Let this process take no more than so many bytes of the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


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


class TestPrecision:
    """What a bfloat16 model says is summed in float32; summed in bfloat16 it came in steps."""

    @pytest.fixture
    def half(self, tiny, tmp_path):
        from transformers import AutoModelForCausalLM

        directory = shutil.copytree(tiny, tmp_path / "half")
        AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(directory)
        return directory

    def test_likelihoods_are_those_of_its_logits_in_float64(self, half, folder):
        from transformers import AutoModelForCausalLM

        values = run(half, folder, ("likely",), "likely/nll", batch_size=1)["likely"].values["nll"]
        model = Independent(half)
        model.model = AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).eval()
        expected = [model.target(f"{row['question']}:", f" {row['answer']}\n")[0] for row in rows(12)]
        assert values == pytest.approx(expected, abs=1e-4)
        rounded = torch.tensor(expected).bfloat16().double().numpy()
        assert abs(rounded - expected).max() > 1e-3  # so that rounding would be seen

    def test_they_differ_from_those_of_float32_weights_by_2_percent_of_the_items_spread(
        self, tiny, half, folder
    ):
        whole = run(tiny, folder, ("likely",), "likely/nll")["likely"].values["nll"]
        shutil.rmtree(state_dir())
        own = run(half, folder, ("likely",), "likely/nll")["likely"].values["nll"]
        assert (torch.tensor(own) - torch.tensor(whole)).std() < 0.02 * torch.tensor(whole).std()


TEMPLATE = "{% for m in messages %}{{ m.role[0] + ': ' + m.content + '\\n' }}{% endfor %}"
QUESTION = "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"


class TestChat:
    """Lower-case roles' initials are all that the tiny vocabulary can spell."""

    @pytest.fixture
    def chat(self, tiny, tmp_path):
        from transformers import AutoTokenizer

        directory = shutil.copytree(tiny, tmp_path / "chat")
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        tokenizer.chat_template = TEMPLATE + QUESTION
        tokenizer.save_pretrained(directory)
        return directory

    def expected(self, model, prompt):
        """Fill prompts in: the example shown is the first other question of the data."""
        first, other = ("0 + 5", "5"), ("1 + 5", "6")
        found = []
        for row in rows(12):
            question, answer = other if row["question"] == first[0] else first
            filled = prompt.format(row["question"], question=question, answer=answer)
            found.append(model.target(filled, f"{row['answer']}\n")[0])
        return found

    def nll(self, model, folder, **chosen):
        path = folder / "likely.yaml"
        path.write_text(path.read_text() + "target_delimiter: ''\n")
        path.write_text(path.read_text().replace('" {{answer}}', '"{{answer}}'))
        return run(model, folder, ("likely",), "likely/nll", **chosen)["likely"].values["nll"]

    def test_the_template_is_applied_with_the_system_instruction(self, chat, folder):
        own = self.nll(chat, folder, chat_template=True, system_instruction="add")
        prompt = "s: add\nu: {}:\na:"
        assert own == pytest.approx(self.expected(Independent(chat), prompt), abs=1e-4)

    def test_without_it_the_prompt_is_bare(self, chat, folder):
        assert self.nll(chat, folder) == pytest.approx(self.expected(Independent(chat), "{}:"), abs=1e-4)

    @pytest.mark.parametrize(
        ("turns", "prompt"),
        [
            (True, "u: {question}:\na: {answer}\n\nu: {}:\na:"),
            (False, "u: {question}:{answer}\n\n\n{}:\na:"),
        ],
    )
    def test_examples_are_turns_or_one_text(self, chat, folder, turns, prompt):
        path = folder / "likely.yaml"
        example = "fewshot_config: {sampler: first_n, split: test}"
        path.write_text(path.read_text().replace("num_fewshot: 0", f"num_fewshot: 1\n{example}"))
        own = self.nll(chat, folder, chat_template=True, fewshot_as_multiturn=turns)
        assert own == pytest.approx(self.expected(Independent(chat), prompt), abs=1e-4)

    def test_a_template_is_chosen_by_its_name(self, tiny, folder, tmp_path):
        from transformers import AutoTokenizer

        directory = shutil.copytree(tiny, tmp_path / "named")
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        tokenizer.chat_template = {"default": TEMPLATE, "terse": "{{ messages[-1].content }}?"}
        tokenizer.save_pretrained(directory)
        own = self.nll(directory, folder, chat_template="terse")
        assert own == pytest.approx(self.expected(Independent(directory), "{}:?"), abs=1e-4)
        with pytest.raises(BadInput, match="has no template other, only default, terse; name one"):
            self.nll(directory, folder, chat_template="other")

    def test_a_model_without_one_is_refused(self, tiny, folder, loaded):
        with pytest.raises(BadInput, match="has no chat template, and evaluate.chat_template asks for one"):
            run(tiny, folder, chat_template=True)
        assert not loaded


class TestGeneration:
    def test_the_parameters_win_over_the_task(self, tiny, folder):
        lengths = []
        real = hf.HuggingFace.answer

        for tokens in (3, 1):
            shutil.rmtree(state_dir(), ignore_errors=True)
            with pytest.MonkeyPatch.context() as patch:
                said = []
                patch.setattr(
                    hf.HuggingFace, "answer", lambda *given, said=said: said.append(real(*given)) or said[-1]
                )
                run(tiny, folder, ("spell",), generation={"max_gen_toks": tokens, "until": ["?"]})
            lengths.append(max(len(sample["resps"][0][0]) for sample in said[0]))
        assert lengths == [3, 1]


class TestRefusing:
    def test_a_task_that_generates_more_than_the_context_holds(self, tiny, folder, loaded):
        sentence = "spell: generates up to 64 tokens, and the context of .* holds 64 in all; set"
        with pytest.raises(BadInput, match=sentence):
            run(tiny, folder, generation={"max_gen_toks": 64})
        assert not loaded

    def test_a_model_without_a_tokenizer(self, tiny, folder, tmp_path, loaded):
        model = shutil.copytree(tiny, tmp_path / "model")
        for path in model.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(BadInput, match="has no tokenizer that can be loaded .*; save it beside"):
            run(model, folder)
        assert not loaded

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

        def small(lm, task, chosen, params):
            tried.append(lm.batch_size)
            if lm.batch_size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(lm, task, chosen, params)

        whole = run(tiny, folder, ("likely",), "likely/nll", batch_size=9)
        shutil.rmtree(state_dir())
        monkeypatch.setattr(measure, "_run", small)
        halved = run(tiny, folder, ("likely",), "likely/nll", batch_size=9)
        assert tried == [9, 4, 2]
        assert "batches of 9 do not fit" in caplog.text
        assert halved["likely"].values["nll"] == pytest.approx(whole["likely"].values["nll"], abs=1e-4)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_a_gpu_that_is_too_small_halves_them(self, tiny, folder, tmp_path, monkeypatch):
        """With a vocabulary so large that logits need most of the memory."""
        wide = widened(tiny, tmp_path / "wide", vocabulary=2**17)

        def asked(batch_size):
            shutil.rmtree(state_dir(), ignore_errors=True)
            chosen = {"batch_size": batch_size, "device": "cuda"}
            return run(wide, folder, ("likely",), "likely/nll", **chosen)["likely"]

        least, most = (most_reserved(partial(asked, size)) for size in (3, 12))
        assert least < most
        real, tried = measure._run, []
        monkeypatch.setattr(
            measure, "_run", lambda lm, *given: tried.append(lm.batch_size) or real(lm, *given)
        )
        with gpu_memory((least + most) // 2):
            halved = asked(12)
        assert tried[0] == 12
        assert 1 < len(tried) <= 3
        model = Independent(wide)
        expected = [model.target(f"{row['question']}:", f" {row['answer']}\n")[0] for row in rows(12)]
        assert halved.values["nll"] == pytest.approx(expected, abs=1e-4)

    def test_auto_asks_16_items_at_a_time_on_the_cpu(self, tiny, folder, monkeypatch):
        real, tried = measure._run, []
        monkeypatch.setattr(
            measure, "_run", lambda lm, *given: tried.append(lm.batch_size) or real(lm, *given)
        )
        run(tiny, folder, ("likely",), "likely/nll", batch_size="auto")
        assert tried == [16]

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

        def load(files, device):
            model, tokenizer = real(files, device)
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
