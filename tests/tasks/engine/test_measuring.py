"""What is measured of a checkpoint equals a plain loop over the texts in float64."""

import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.passage import Passage
from tasks.checkpoints.weights import NotFinite, open_weights
from tasks.engine import on_text
from tasks.engine.measuring import with_measured
from tasks.engine.model import write_models
from tasks.engine.plan import Plan
from tasks.engine.planning import make_plan
from tasks.engine.progress import Headway, untold
from tasks.parameters.merge import MergeParams
from tests.support.tiny_families import FAMILIES, TEXTS, write


def plan_of(directories: Sequence[Path], texts: Sequence[str] = TEXTS, method: str = "fisher") -> Plan:
    inputs = [open_weights(directory, directory.name) for directory in directories]
    params = MergeParams(method=method, device="cpu")
    plan = make_plan([params], inputs, None, range(1, len(inputs) + 1))
    return replace(plan, texts=[Passage("", text) for text in texts])


def by_a_plain_loop(directory: Path, texts: Sequence[str] = TEXTS) -> dict[str, np.ndarray]:
    """Return Σ g² in units of its root mean square: no hooks, no batches, all in float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    named = dict(model.named_parameters())  # a tied head is its embedding
    sums = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:24]])
        if ids.shape[1] < 2:
            continue
        scores = torch.log_softmax(model(input_ids=ids).logits[0], dim=-1)
        likelihood = sum(scores[place, ids[0, place + 1]] for place in range(ids.shape[1] - 1))
        gradients = torch.autograd.grad(likelihood, list(named.values()))
        for name, gradient in zip(named, gradients, strict=True):
            sums[name] += gradient**2
    every = torch.cat([own.flatten() for own in sums.values()])
    return {name: (own / every.square().mean().sqrt()).numpy() for name, own in sums.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_mean_of_squared_gradients(family: str, tmp_path: Path) -> None:
    directories = [write(tmp_path / f"checkpoint-{step}", family, step) for step in (1, 2)]
    plan = with_measured(plan_of(directories), tmp_path / "scratch", untold)
    for directory, found in zip(directories, plan.measured, strict=True):
        expected = by_a_plain_loop(directory)
        assert found.tensors.keys() == expected.keys() == plan.shapes.keys()
        for name, values in expected.items():
            assert found.tensors[name].shape == values.shape
            measured = found.read(name, 0, values.size, np.float64).reshape(values.shape)
            np.testing.assert_allclose(measured, values, rtol=2e-3, atol=1e-5, err_msg=name)


def by_recorded_inputs(directory: Path, texts: Sequence[str] = TEXTS) -> dict[str, np.ndarray]:
    """Return Σ x xᵀ by the layer's weight, from what the layers are called with; no head that is an embedding."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    heard: dict[str, list[np.ndarray]] = {}
    tied = model.config.tie_word_embeddings
    for name, layer in model.named_modules():
        if type(layer).__name__ in ("Linear", "Conv1D") and not (tied and name == "lm_head"):
            own = heard.setdefault(f"{name}.weight", [])
            layer.register_forward_hook(lambda layer, x, y, own=own: own.append(x[0][0].detach().numpy()))
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:24]])
        if ids.shape[1] > 1:
            model(input_ids=ids)
    return {name: sum(x.T @ x for x in own) for name, own in heard.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_those_of_every_linear_layer(family: str, tmp_path: Path) -> None:
    directories = [write(tmp_path / f"checkpoint-{step}", family, step) for step in (1, 2)]
    plan = with_measured(plan_of(directories, method="regmean"), tmp_path / "scratch", untold)
    ending = ":rows" if "gpt2" in family else ""
    for directory, found in zip(directories, plan.measured, strict=True):
        expected = by_recorded_inputs(directory)
        head = {"lm_head.weight"} & expected.keys()  # a torch.nn.Linear in GPT-2 too
        assert bool(head) == ("untied" in family)
        assert found.tensors.keys() == head | {name + ending for name in expected.keys() - head}
        for name, gram in expected.items():
            key = name if name in head else name + ending
            assert found.tensors[key].shape == gram.shape
            measured = found.read(key, 0, gram.size, np.float64).reshape(gram.shape)
            np.testing.assert_allclose(measured, gram, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_tensor_that_the_model_does_not_compute_with_is_averaged(tmp_path: Path) -> None:
    """Such as the value head of another training."""
    directories = [write(tmp_path / f"checkpoint-{step}", "llama", step) for step in (1, 2)]
    for number, directory in enumerate(directories):
        tensors = load_file(directory / "model.safetensors") | {"v_head.weight": torch.full((3, 16), number)}
        own = {name: tensor.float() for name, tensor in tensors.items()}
        save_file(own, directory / "model.safetensors", metadata={"format": "pt"})
    for method in ("fisher", "regmean"):
        (tmp_path / method).mkdir()
        write_models(plan_of(directories, method=method), [tmp_path / method])
        merged = load_file(tmp_path / method / "model.safetensors")
        assert torch.equal(merged["v_head.weight"], torch.full((3, 16), 0.5))


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_one_model_is_in_memory_at_a_time(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = [write(tmp_path / f"checkpoint-{step}", "llama", step) for step in (1, 2, 3)]
    loaded: list[weakref.ref[Any]] = []
    load = on_text.load_causal_model

    def load_alone(directory: Path, dtype: str) -> Any:
        assert not [weight for weight in loaded if weight()]
        model = load(directory, dtype)
        loaded.extend(weakref.ref(parameter) for parameter in model.parameters())
        return model

    monkeypatch.setattr(on_text, "load_causal_model", load_alone)
    with_measured(plan_of(directories, method=method), tmp_path / "scratch", untold)
    assert loaded
    assert not [weight for weight in loaded if weight()]


def test_the_unit_is_that_of_the_model_not_of_the_text(tmp_path: Path) -> None:
    """A text that is there twice changes nothing: only proportions count."""
    plan = plan_of([write(tmp_path / f"checkpoint-{step}", "llama", step) for step in (1, 2)])
    once = with_measured(plan, tmp_path / "once", untold).measured
    twice = with_measured(
        replace(plan, texts=[*plan.texts, *plan.texts]), tmp_path / "twice", untold
    ).measured
    for one, other in zip(once, twice, strict=True):
        for name, info in one.tensors.items():
            size = int(np.prod(info.shape))
            np.testing.assert_allclose(
                one.read(name, 0, size, np.float64),
                other.read(name, 0, size, np.float64),
                rtol=1e-4,
                atol=1e-9,
            )
    squares = [
        float(np.square(once[0].read(name, 0, int(np.prod(info.shape)), np.float64)).sum())
        for name, info in once[0].tensors.items()
    ]
    assert sum(squares) == pytest.approx(plan.bytes_measured / 4 / 2, rel=1e-5)


def test_names_that_lack_the_wrapping_class_are_the_same_tensors(tmp_path: Path) -> None:
    """GPT-2 as the Hub has it, with h.0.attn for transformer.h.0.attn."""
    directories = [write(tmp_path / f"checkpoint-{step}", "gpt2", step) for step in (1, 2)]
    for directory in directories:
        tensors = load_file(directory / "model.safetensors")
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        save_file(bare, directory / "model.safetensors", metadata={"format": "pt"})
    plan = with_measured(plan_of(directories), tmp_path / "scratch", untold)
    expected = by_a_plain_loop(directories[0])
    found = plan.measured[0]
    values = expected["transformer.h.1.mlp.c_fc.weight"]
    measured = found.read("h.1.mlp.c_fc.weight", 0, values.size, np.float64).reshape(values.shape)
    np.testing.assert_allclose(measured, values, rtol=2e-3, atol=1e-5)


def test_what_is_finished_is_not_measured_again_and_what_is_not_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of([write(tmp_path / f"checkpoint-{step}", "llama", step) for step in (1, 2, 3)])
    whole = with_measured(plan, tmp_path / "whole", untold).measured

    class Stopped(BaseException):
        pass

    def stop(headway: Headway) -> None:
        if "checkpoint-2" in headway.measuring:
            raise Stopped

    monkeypatch.setattr(on_text, "TELL_EVERY_S", 0)
    with pytest.raises(Stopped):
        with_measured(plan, tmp_path / "parts", stop)
    heard: list[str] = []
    found = with_measured(plan, tmp_path / "parts", lambda own: heard.append(own.measuring)).measured
    assert heard[0] == "measuring checkpoint-2 (2 of 3): 0 of 4 texts"
    assert not any("checkpoint-1" in told for told in heard)
    for step in range(3):
        files = [tmp_path / place / str(step) / "model.safetensors" for place in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert len(found) == len(whole)


def test_methods_that_need_no_text_measure_nothing(tmp_path: Path) -> None:
    inputs = [open_weights(write(tmp_path / f"c-{step}", "llama", step), "c") for step in (1, 2)]
    plan = make_plan([MergeParams(method="average")], inputs, None, [1, 2])
    assert with_measured(plan, tmp_path / "scratch", untold) is plan
    assert plan.bytes_measured == 0
    assert not (tmp_path / "scratch").exists()


def no_tokenizer(directory: Path) -> None:
    for path in directory.glob("tokenizer*"):
        path.unlink()


def not_a_number(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def a_token_beyond_the_embedding(directory: Path) -> None:
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["a"] = 9999
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))


def no_language_model(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))


@pytest.mark.parametrize(
    ("damage", "kind", "sentence"),
    [
        (no_tokenizer, BadInput, "checkpoint-2: has no tokenizer that can be loaded"),
        (not_a_number, NotFinite, "checkpoint-1: tensor model.norm.weight holds NaN or Inf"),
        (a_token_beyond_the_embedding, BadInput, "checkpoint-1: cannot be measured on the calibration text"),
        (no_language_model, BadInput, "checkpoint-1: cannot be loaded as a causal language model"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    damage: Callable[[Path], None], kind: type[BadInput], sentence: str, tmp_path: Path
) -> None:
    directories = [write(tmp_path / f"checkpoint-{step}", "llama", step) for step in (1, 2)]
    for directory in directories:
        damage(directory)
    with pytest.raises(kind, match=sentence):
        with_measured(plan_of(directories), tmp_path / "scratch", untold)


def test_texts_of_one_token_are_no_text(tmp_path: Path) -> None:
    plan = plan_of([write(tmp_path / f"checkpoint-{step}", "llama", step) for step in (1, 2)], ("a", "b"))
    with pytest.raises(
        BadInput, match="merge.calibration: no text has a token to predict; take longer texts"
    ):
        with_measured(plan, tmp_path / "scratch", untold)
    shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
