"""Coefficients learned on text equal those of torch.autograd straight through θ(λ), in float64."""

import json
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
from tasks.engine import learning, on_text
from tasks.engine.learning import with_learned
from tasks.engine.model import write_models
from tasks.engine.on_text import Tokens, tokens_of
from tasks.engine.plan import Plan
from tasks.engine.planning import make_plan
from tasks.engine.progress import Headway, untold
from tasks.parameters.merge import AdamergingParams, MergeParams
from tests.support.tiny_families import FAMILIES, TEXTS, write

STEPS, RATE = 8, 0.02
ALL_PREDICTED = [Passage("", text) for text in TEXTS]
ANSWERS = [Passage("1 + 5:", " 6\n"), Passage("", "hello"), Passage("the sum of 2 and 3 is ", "5, and more")]


def write_run(root: Path, family: str, count: int = 3, dtype: torch.dtype = torch.float32) -> list[Path]:
    """Write a base, and checkpoints around it."""
    base = write(root / "base", family, 0)
    weights = load_file(base / "model.safetensors")
    for step in range(1, count + 1):
        noise = torch.Generator().manual_seed(step)
        moved = {
            name: (own + 0.1 * torch.randn(own.shape, generator=noise)).to(dtype)
            for name, own in weights.items()
        }
        directory = write(root / f"checkpoint-{step}", family, 0)
        save_file(moved, directory / "model.safetensors", metadata={"format": "pt"})
    return [base, *(root / f"checkpoint-{step}" for step in range(1, count + 1))]


def plan_of(run: Sequence[Path], texts: Sequence[Passage] = ALL_PREDICTED, steps: int = STEPS) -> Plan:
    base, *checkpoints = run
    params = MergeParams(
        method="adamerging", device="cpu", adamerging=AdamergingParams(steps=steps, rate=RATE)
    )
    inputs = [open_weights(directory, directory.name) for directory in checkpoints]
    plan = make_plan([params], inputs, open_weights(base, "base"), range(1, len(inputs) + 1))
    return replace(plan, texts=texts)


def learned(plan: Plan, scratch: Path, tell: Callable[[Headway], None] = untold) -> dict[str, Any]:
    return dict(with_learned(plan, scratch, tell).variants[0].coefficients)


def by_autograd(
    run: Sequence[Path], texts: Sequence[Passage] = ALL_PREDICTED
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Return coefficients and the entropy before each step: functional_call and torch's Adam, all in float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, *models = (AutoModelForCausalLM.from_pretrained(own, dtype=torch.float64).eval() for own in run)
    origin = {name: own.detach() for name, own in base.named_parameters()}  # a tied head is its embedding
    deltas = [
        {name: own.detach() - origin[name] for name, own in model.named_parameters()} for model in models
    ]
    lambdas = {
        name: torch.full((len(models),), 1 / len(models), dtype=torch.float64, requires_grad=True)
        for name in origin
    }
    tokenizer = AutoTokenizer.from_pretrained(run[-1])
    batch = [
        (torch.tensor([tokenizer(prompt + text)["input_ids"][:24]]), max(len(prompt), 1) - 1)
        for prompt, text in texts  # a token is a letter
        if len(prompt + text) > 1
    ]
    adam, told = torch.optim.Adam(lambdas.values(), lr=RATE), []
    for _ in range(STEPS):
        theta = {
            name: own + sum(c * delta[name] for c, delta in zip(lambdas[name], deltas, strict=True))
            for name, own in origin.items()
        }
        entropies = [
            torch.distributions.Categorical(
                logits=torch.func.functional_call(base, theta, (), {"input_ids": ids}).logits[0, first:-1]
            ).entropy()
            for ids, first in batch
        ]
        loss = torch.cat(entropies).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for own in lambdas.values():
                own.clamp_(0, 1)
        told.append(loss.item())
    return {name: own.detach().numpy() for name, own in lambdas.items()}, told


@pytest.mark.parametrize(
    ("family", "texts"),
    [*((family, ALL_PREDICTED) for family in FAMILIES), ("llama", ANSWERS)],
    ids=[*FAMILIES, "answers alone"],
)
def test_they_are_those_of_autograd(
    family: str, texts: Sequence[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_text, "TELL_EVERY_S", 0)
    run = write_run(tmp_path, family)
    expected, entropies = by_autograd(run, texts)
    told: list[str] = []
    found = learned(plan_of(run, texts), tmp_path / "scratch", lambda own: told.append(own.measuring))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4, err_msg=name)
    assert max(abs(own - 1 / 3) for values in found.values() for own in values) > 4 * RATE
    assert told == ["learning coefficients: loading the model"] + [
        f"learning coefficients: step {step} of {STEPS}, entropy {entropy:.4f}"
        for step, entropy in enumerate(entropies, 1)
    ]
    assert entropies[-1] < entropies[0]


def test_a_token_in_which_prompt_and_text_meet_is_predicted(tmp_path: Path) -> None:
    """As with tokenizers whose words begin with their space."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    merges = [("4", "2"), (" ", "42")]
    pairs = Tokenizer(models.BPE({"a": 0, ":": 1, " ": 2, "4": 3, "2": 4, "42": 5, " 42": 6}, merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs)
    config = LlamaConfig(max_position_embeddings=4)
    texts = [Passage("a: ", "42"), Passage("a:", " 42"), Passage("", "a: 42"), Passage("a:a:a", "42")]
    assert tokens_of(tokenizer, texts, config) == [
        Tokens([0, 1, 6], 2),
        Tokens([0, 1, 6], 2),
        Tokens([0, 1, 6], 1),
    ]  # of the last one nothing is left to predict


def test_more_texts_than_a_step_takes_come_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes texts from all over, and all of them come before one comes again."""
    monkeypatch.setattr(learning, "TEXTS_A_STEP", 2)
    taken: list[list[int]] = []
    backward = learning._backward

    def listen(model: Any, texts: Sequence[Tokens], label: str) -> float:
        taken.append([len(own.ids) for own in texts])
        return backward(model, texts, label)

    monkeypatch.setattr(learning, "_backward", listen)
    texts = [Passage("", "abcdef"[:length]) for length in (2, 3, 4, 5, 6)]
    learned(plan_of(write_run(tmp_path, "llama"), texts, steps=4), tmp_path / "scratch")
    assert taken == [[2, 5], [3, 6], [4], [2, 5]]


@pytest.mark.parametrize(("size", "least"), [("READ_AT_ONCE", 7), ("MOST_TOKENS", 1)])
def test_how_much_is_taken_at_once_does_not_matter(
    size: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elements of tensors that are read, and tokens of texts that are computed on together."""
    plan = plan_of(write_run(tmp_path, "llama"), steps=2)
    whole = learned(plan, tmp_path / "whole")
    monkeypatch.setattr(learning, size, least)
    for name, values in learned(plan, tmp_path / "pieces").items():
        np.testing.assert_allclose(values, whole[name], rtol=0, atol=1e-5, err_msg=name)


def test_bfloat16_files_are_computed_in_float32(tmp_path: Path) -> None:
    run = write_run(tmp_path, "llama", dtype=torch.bfloat16)
    found = learned(plan_of(run), tmp_path / "scratch")
    for name, values in by_autograd(run)[0].items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4, err_msg=name)


def test_a_process_that_goes_on_ends_with_the_same_coefficients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(write_run(tmp_path, "llama"))
    whole = learned(plan, tmp_path / "whole")

    class Stopped(BaseException):
        pass

    def stop(headway: Headway) -> None:
        if "step 6" in headway.measuring:
            raise Stopped

    monkeypatch.setattr(on_text, "TELL_EVERY_S", 0)
    with pytest.raises(Stopped):
        learned(plan, tmp_path / "parts", stop)
    (tmp_path / "parts" / "part").write_bytes(b"half a file")
    told: list[str] = []
    assert learned(plan, tmp_path / "parts", lambda own: told.append(own.measuring)) == whole
    assert told[1].startswith("learning coefficients: step 6 of 8")
    assert learned(plan, tmp_path / "parts", lambda own: told.append("again")) == whole
    assert told[-1] != "again"


def test_one_model_is_loaded_however_many_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = on_text.load_causal_model

    def listen(directory: Path, dtype: str) -> Any:
        model = load(directory, dtype)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(on_text, "load_causal_model", listen)
    learned(plan_of(write_run(tmp_path, "llama", count=5), steps=2), tmp_path / "scratch")
    assert [own() for own in loaded] == [None]


def test_a_tensor_that_the_model_does_not_compute_with_is_averaged(tmp_path: Path) -> None:
    run = write_run(tmp_path, "llama")
    for number, directory in enumerate(run):
        tensors = load_file(directory / "model.safetensors") | {"v_head.weight": torch.full((3, 16), number)}
        own = {name: tensor.float() for name, tensor in tensors.items()}
        save_file(own, directory / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    write_models(plan_of(run, steps=2), [tmp_path / "out"])
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.allclose(merged["v_head.weight"], torch.full((3, 16), 2.0))
    assert not (tmp_path / "out" / ".measured").exists()


def test_other_methods_learn_nothing(tmp_path: Path) -> None:
    inputs = [open_weights(write(tmp_path / f"c-{step}", "llama", step), "c") for step in (1, 2)]
    plan = make_plan([MergeParams(method="average")], inputs, None, [1, 2])
    assert with_learned(plan, tmp_path / "scratch", untold) is plan
    assert not (tmp_path / "scratch").exists()


def no_tokenizer(run: Sequence[Path]) -> None:
    for path in run[-1].glob("tokenizer*"):
        path.unlink()


def not_a_number(run: Sequence[Path]) -> None:
    tensors = load_file(run[1] / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, run[1] / "model.safetensors", metadata={"format": "pt"})


def overflow(run: Sequence[Path]) -> None:
    for directory in run:
        tensors = load_file(directory / "model.safetensors")
        tensors["model.norm.weight"][:] = 3e38
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def no_language_model(run: Sequence[Path]) -> None:
    config = json.loads((run[-1] / "config.json").read_text())
    for directory in run:
        (directory / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))


@pytest.mark.parametrize(
    ("damage", "kind", "sentence"),
    [
        (no_tokenizer, BadInput, "checkpoint-3: has no tokenizer that can be loaded"),
        (not_a_number, NotFinite, "checkpoint-1: tensor model.norm.weight holds NaN or Inf"),
        (overflow, BadInput, "checkpoint-3: merged with the others predicts no finite numbers"),
        (no_language_model, BadInput, "checkpoint-3: cannot be loaded as a causal language model"),
    ],
)
def test_what_cannot_be_learned_on_is_one_sentence(
    damage: Callable[[Sequence[Path]], None], kind: type[BadInput], sentence: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path, "llama")
    damage(run)
    with pytest.raises(kind, match=sentence):
        learned(plan_of(run), tmp_path / "scratch")
