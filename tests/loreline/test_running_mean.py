"""mean=True: the mean of the weights after every step since the last save, beside each kept checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback, TrainingArguments

from loreline import MergeAfterTraining
from loreline.keeping import kept_directory
from loreline.running_mean import MEAN_FILE, why_no_mean
from tests.support.short_training import Record, Weights, tiny_llama, train

pytestmark = pytest.mark.usefixtures("no_server")


def mean(run: Path, step: int) -> Path:
    return kept_directory(run) / f"mean-{step}"


def said(run: Path, step: int) -> tuple[int, int, int]:
    found = json.loads((mean(run, step) / MEAN_FILE).read_text())
    assert found["by"] == "loreline"
    return found["first"], found["last"], found["count"]


def check(run: Path, step: int, expected: Weights, tolerance: float = 1e-6) -> None:
    """Compare what transformers loads with the mean that was expected."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(mean(run, step), dtype="auto")
    found = dict(model.named_parameters(remove_duplicate=False))
    assert found.keys() == expected.keys()
    for name, each in found.items():
        np.testing.assert_allclose(each.detach().double().numpy(), expected[name], tolerance, tolerance)


@pytest.mark.parametrize("where", [True, "cpu"])
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_mean_of_every_step_since_the_save_before(run: Path, tied: bool, where: Any) -> None:
    record = Record()
    train(run, [record, MergeAfterTraining(keep=3, mean=where)], tiny_llama(tied=tied), max_steps=11)
    for first, last in ((4, 6), (7, 9), (10, 11)):
        assert said(run, last) == (first, last, last - first + 1)
        check(run, last, record.mean(range(first, last + 1)))
    assert not mean(run, 3).exists()


@pytest.mark.slow
def test_means_weighed_by_their_counts_are_the_mean_of_the_span(run: Path) -> None:
    record = Record()
    train(run, [record, MergeAfterTraining(keep=9, mean=True)], max_steps=11)
    counts = {step: said(run, step)[2] for step in (6, 9, 11)}
    stored = {step: load_file(mean(run, step) / "model.safetensors") for step in counts}
    expected = record.mean(range(4, 12))
    for name in stored[6]:
        whole = sum(count * stored[step][name].double() for step, count in counts.items()) / sum(
            counts.values()
        )
        np.testing.assert_allclose(whole.numpy(), expected[name], 1e-6, 1e-6)


def test_bfloat16_is_summed_in_float32_and_saved_in_bfloat16(run: Path) -> None:
    record = Record()
    model = tiny_llama(dtype=torch.bfloat16)
    train(run, [record, MergeAfterTraining(keep=1, mean=True)], model, max_steps=12, save_steps=12)
    tensors = load_file(mean(run, 12) / "model.safetensors")
    expected = record.mean(range(1, 13))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    for name, tensor in tensors.items():
        nearest = torch.from_numpy(expected[name]).bfloat16()
        assert (tensor != nearest).float().mean() < 0.02  # where the exact mean lies between two of them
        np.testing.assert_allclose(tensor.double().numpy(), expected[name], 2**-8, 1e-6)


@pytest.mark.slow
def test_every_other_step(run: Path) -> None:
    record = Record()
    train(run, [record, MergeAfterTraining(keep=1, mean=True, every=2)], max_steps=7, save_steps=7)
    assert said(run, 7) == (2, 6, 3)
    check(run, 7, record.mean(range(2, 7, 2)))


def test_what_is_frozen_is_not_averaged(run: Path) -> None:
    model = tiny_llama()
    model.model.embed_tokens.weight.requires_grad_(False)
    callback, counted = MergeAfterTraining(keep=1, mean=True), []

    class Count(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            assert callback._mean is not None
            counted.append(len(callback._mean._means))

    record = Record()
    train(run, [record, callback, Count()], model, max_steps=3)
    assert set(counted) == {len(list(model.parameters())) - 1}
    check(run, 3, record.mean(range(1, 4)))


def test_after_a_resumption_steps_that_were_done_again_are_not_mixed_in(run: Path) -> None:
    train(run, [MergeAfterTraining(keep=9, mean=True)])
    again = Record()
    train(run, [again, MergeAfterTraining(keep=9, mean=True)], tiny_llama(1), resume=str(run / "checkpoint-6"), max_steps=11)  # fmt: skip
    assert said(run, 9) == (7, 9, 3)
    assert said(run, 11) == (10, 11, 2)
    check(run, 9, again.mean(range(7, 10)))
    assert not mean(run, 12).exists()


def test_a_full_disk_is_one_line_and_the_next_interval_has_its_own_steps(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, save = Record(), tiny_llama().__class__.save_pretrained

    def full(self: Any, directory: Any, **rest: Any) -> None:
        if str(directory).endswith(".mean-3.making"):
            Path(directory, "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(self, directory, **rest)

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    train(run, [record, MergeAfterTraining(keep=9, mean=True)], max_steps=6)
    (line,) = [record.message for record in caplog.records if "mean" in record.message]
    why = "[Errno 28] No space left on device"
    assert line == f"{run}: the mean of the weights up to checkpoint-3 is not kept: {why}"
    assert not mean(run, 3).exists()
    assert (kept_directory(run) / "checkpoint-3").exists()
    assert said(run, 6) == (4, 6, 3)


def test_what_fails_in_a_step_ends_the_mean_and_not_the_training(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("loreline.running_mean.RunningMean.add", full)
    assert train(run, [MergeAfterTraining(keep=1, mean=True)], max_steps=6).state.global_step == 6
    lines = [record.message for record in caplog.records if "mean" in record.message]
    assert lines == [f"{run}: no mean of its weights is kept from step 1: out of memory"]


def test_adapters_are_told_at_the_start_and_kept_without_means(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    train(run, [MergeAfterTraining(keep=1, mean=True)], model, max_steps=3)
    lines = [record.message for record in caplog.records if "mean" in record.message]
    assert lines == [
        f"{run}: no mean of its weights is kept: the mean of an adapter's factors A and B is not the mean of "
        "its updates B·A"
    ]
    assert [path.name for path in kept_directory(run).iterdir()] == ["checkpoint-3"]


@pytest.mark.parametrize(
    ("variable", "why"),
    [("ACCELERATE_USE_FSDP", "FSDP shards the weights"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed holds")],
)
def test_sharded_training_cannot(variable: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = TrainingArguments("x", use_cpu=True)
    assert why_no_mean(arguments, tiny_llama()) is None
    monkeypatch.setenv(variable, "true")
    assert (why_no_mean(arguments, tiny_llama()) or "").startswith(why)


def test_weights_that_are_elsewhere_cannot() -> None:
    with torch.device("meta"):
        model = tiny_llama()
    assert (
        why_no_mean(TrainingArguments("x", use_cpu=True), model)
        == "the weights are not whole on this process"
    )
