"""Adapters merge like the models they make; among themselves they stay adapters."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.engine import plan as planned
from tasks.engine.progress import Headway
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import (
    EmaParams,
    LawaParams,
    LoreParams,
    MergeParams,
    MetagptParams,
    NanParams,
    TrendParams,
)
from tests.support.tiny_adapters import (
    changes,
    double,
    load,
    logits,
    unloaded,
    write_adapter,
    write_llama,
    write_tensors,
)

SIGMA1 = LoreParams(mu=0.3, mu_scale="sigma1", tolerance=1e-12)


METHODS: dict[str, tuple[MergeParams, list[float]]] = {
    "average": (MergeParams(method="average"), [1 / 3] * 3),
    "weighted": (MergeParams(method="average", weights=(1, 2, 5)), [1 / 8, 2 / 8, 5 / 8]),
    "ema": (MergeParams(method="ema"), [0.36 / 1.96, 0.6 / 1.96, 1 / 1.96]),
    "wma": (MergeParams(method="wma"), [1 / 6, 2 / 6, 3 / 6]),
    "lawa": (MergeParams(method="lawa", lawa=LawaParams(k=2, spacing=2)), [0.5, 0, 0.5]),
    "half-life": (MergeParams(method="ema", ema=EmaParams(half_life=1)), [1 / 7, 2 / 7, 4 / 7]),
    "trend": (MergeParams(method="trend", trend=TrendParams(kappa=1)), [-1 / 6, 1 / 3, 5 / 6]),
    "planned": (MergeParams(method="planned"), [1 / 12, 1 / 3, 7 / 12]),
    "wsm": (MergeParams(method="wsm"), [1 / 4, 1 / 2, 1 / 4]),
    "task_arithmetic": (MergeParams(method="task_arithmetic", lam=0.7), [0.7] * 3),
    "unequal": (MergeParams(method="task_arithmetic", lam=-2.0, weights=(0, -1, 0.5)), [0, 2, -1]),
}  # fmt: skip


@pytest.mark.parametrize(("params", "weights"), METHODS.values(), ids=METHODS.keys())
def test_a_linear_method_gives_the_weighted_sum_of_the_changes(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, params: MergeParams, weights: list[float]
) -> None:
    out = tmp_path / "out"
    report = merge_directories(params, adapter_family[1], out)
    merged, inputs = changes(out), [changes(adapter) for adapter in adapter_family[1]]
    assert merged.keys() == inputs[0].keys()
    for module, change in merged.items():
        expected = sum(c * own[module] for c, own in zip(weights, inputs, strict=True))
        np.testing.assert_allclose(change, expected, atol=3e-7 * np.abs(expected).max())
        factors = report.tensors[module.removeprefix("base_model.model.") + ".weight"].factors
        assert factors is not None
        assert factors.rank == np.linalg.matrix_rank(expected, rtol=1e-6)
        assert factors.norms == pytest.approx([np.linalg.norm(own[module]) for own in inputs], rel=1e-6)


@pytest.mark.parametrize(
    "params",
    [
        MergeParams(method="average"),
        MergeParams(method="task_arithmetic", weights="metagpt"),
        MergeParams(method="metagpt", metagpt=MetagptParams(per="tensor")),
        MergeParams(method="task_arithmetic", weights="nan", nan=NanParams(of="task_vectors", per="model")),
        MergeParams(method="model_stock"),
        MergeParams(method="drift"),
        MergeParams(method="lore", lore=SIGMA1),
        MergeParams(method="lore", lam=1.0, lore=SIGMA1.model_copy(update={"rank_ratio": 0.1})),
    ],
)
def test_adapters_in_float64_merge_like_the_full_matrices(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, params: MergeParams
) -> None:
    """The full matrices are merged by the dense engine: as models, over a base of zeros."""
    adapters = double(adapter_family[1], tmp_path / "double")
    merge_directories(params, adapters, tmp_path / "out")
    dense = [tmp_path / "dense" / adapter.name for adapter in adapters]
    for adapter, directory in zip(adapters, dense, strict=True):
        whole = {name: torch.tensor(change) for name, change in changes(adapter).items()}
        write_tensors(directory, whole)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
    on_zeros = params.model_copy(update={"base": str(write_tensors(tmp_path / "zeros", zeros))})
    merge_directories(on_zeros, dense, tmp_path / "full")
    full = load_file(tmp_path / "full" / "model.safetensors")
    for module, change in changes(tmp_path / "out").items():
        expected = full[module].numpy()
        np.testing.assert_allclose(change, expected, atol=1e-10 * np.abs(expected).max())


def test_peft_loads_the_merge_without_a_word_and_it_computes_what_the_dense_merge_does(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from peft import PeftModel

    base, adapters = adapter_family
    merge_directories(MergeParams(method="average"), adapters, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT on transformers
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")
        merged = PeftModel.from_pretrained(load(base), tmp_path / "out")
    assert not caplog.records
    dense = load(base)
    state = [load(unloaded(base, a, tmp_path / "full" / a.name)).state_dict() for a in adapters]
    dense.load_state_dict({name: torch.stack([own[name] for own in state]).mean(0) for name in state[0]})
    torch.testing.assert_close(logits(merged), logits(dense), atol=2e-5, rtol=1e-5)
    assert not torch.allclose(logits(merged), logits(load(base)), atol=1e-3)


@pytest.mark.parametrize(
    "params",
    [
        MergeParams(method="average"),
        MergeParams(method="ties"),
        MergeParams(method="lore", lam=0.5, lore=SIGMA1),
    ],
    ids=lambda params: params.method,
)
def test_on_a_base_adapters_merge_like_the_models_that_peft_makes_of_them(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, params: MergeParams
) -> None:
    base, adapters = adapter_family
    on_base = params.model_copy(update={"base": str(base)})
    report = merge_directories(on_base, adapters, tmp_path / "out")
    models = [unloaded(base, adapter, tmp_path / adapter.name) for adapter in adapters]
    merge_directories(on_base, models, tmp_path / "expected")
    found, expected = (load_file(tmp_path / d / "model.safetensors") for d in ("out", "expected"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # TIES may break a tie of the float32 roundings the other way, in single elements.
        close = torch.isclose(found[name], tensor, atol=1e-6, rtol=1e-5)
        assert close.float().mean() > 0.995, name
    assert (tmp_path / "out" / "config.json").read_text() == (base / "config.json").read_text()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert [source.path for source in report.inputs] == [str(adapter) for adapter in adapters]
    assert len({source.digest for source in report.inputs}) == 3
    assert logits(load(tmp_path / "out")).isfinite().all()


def test_adapters_and_models_mix(adapter_family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, adapters = adapter_family
    whole = unloaded(base, adapters[1], tmp_path / "whole")
    merge_directories(MergeParams(method="average"), [adapters[0], whole, adapters[2]], tmp_path / "out")
    models = [load_file(unloaded(base, a, tmp_path / a.name) / "model.safetensors") for a in adapters]
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(tensor, torch.stack([own[name] for own in models]).mean(0))


def test_whole_tensors_are_averaged_with_the_weights_of_the_method(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    adapters = [
        write_adapter(
            tmp_path / f"checkpoint-{i}", base, i, target_modules=["q_proj"], modules_to_save=["lm_head"],
            bias="lora_only",
        )
        for i in (1, 2)
    ]  # fmt: skip
    files = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    for params, c in (
        (MergeParams(method="wma"), [1 / 3, 2 / 3]),
        (MergeParams(method="task_arithmetic", lam=1.0), [0.5, 0.5]),
    ):
        merge_directories(params, adapters, tmp_path / params.method)
        merged = load_file(tmp_path / params.method / "adapter_model.safetensors")
        for name in ("lm_head.weight", "model.layers.1.self_attn.q_proj.base_layer.bias"):
            expected = sum(
                w * file[f"base_model.model.{name}"].double() for w, file in zip(c, files, strict=True)
            )
            torch.testing.assert_close(merged[f"base_model.model.{name}"], expected.float())


def test_adapters_of_different_layers_merge_to_one_of_all_of_them(tmp_path: Path) -> None:
    from peft import PeftModel

    base = write_llama(tmp_path / "base")
    first = write_adapter(tmp_path / "one", base, 1, r=2, target_modules=["q_proj"], layers_to_transform=[0])
    second = write_adapter(tmp_path / "two", base, 2, target_modules=["q_proj", "up_proj"])
    merge_directories(MergeParams(method="task_arithmetic"), [first, second], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 3
    assert config["rank_pattern"] == config["alpha_pattern"] == {"model.layers.0.self_attn.q_proj": 5}
    one, two, both = (changes(place) for place in (first, second, tmp_path / "out"))
    assert both.keys() == two.keys()
    for module, change in both.items():
        np.testing.assert_allclose(change, one.get(module, 0) + two[module], atol=1e-6)
    stacked = PeftModel.from_pretrained(load(base), tmp_path / "out")
    dense = PeftModel.from_pretrained(load(base), first).merge_and_unload()
    dense = PeftModel.from_pretrained(dense, second).merge_and_unload()
    torch.testing.assert_close(logits(stacked), logits(dense), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (MergeParams(method="ties", base=None), "merge.method: ties works on elements"),
        (MergeParams(method="average", weights=(1, 2)), "merge.weights: 2 weights for 3 checkpoints"),
        (MergeParams(method="wma", lam=0.5), "merge.lam: method wma does not read it"),
    ],
)
def test_what_cannot_be_done_with_adapters_is_refused_and_nothing_is_written(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, params: MergeParams, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        merge_directories(params, adapter_family[1], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_adapters_that_hold_different_whole_tensors_are_refused(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    one = write_adapter(tmp_path / "one", base, 1, target_modules=["q_proj"])
    two = write_adapter(tmp_path / "two", base, 2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    for adapters in ([one, two], [two, one]):
        with pytest.raises(
            BadInput, match="one: tensor lm_head.weight is missing, but others replace it whole"
        ):
            merge_directories(MergeParams(method="average"), adapters, tmp_path / "out")


@pytest.mark.parametrize("on_base", [True, False])
def test_an_adapter_with_nan_is_named_or_left_out(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, on_base: bool
) -> None:
    base, adapters = adapter_family
    adapters = double(adapters, tmp_path)
    path = adapters[1] / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if ".attn.c_attn." in name or ".q_proj." in name)
    tensors[name][-1, -1] = float("nan")
    save_file(tensors, path)
    params = MergeParams(method="average", base=str(base) if on_base else None)
    with pytest.raises(BadInput, match=r"checkpoint-2: tensor .*(c_attn|q_proj).weight holds NaN or Inf"):
        merge_directories(params, adapters, tmp_path / "out")
    report = merge_directories(params.model_copy(update={"on_nan": "drop"}), adapters, tmp_path / "out")
    assert len(report.inputs) == 2
    assert "checkpoint-2 is left out" in report.notes[0]


def test_the_same_adapters_give_the_same_bytes_and_a_finished_merge_is_not_done_again(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    params, count = MergeParams(method="lore", lore=SIGMA1), len(changes(adapter_family[1][0]))
    for out, merged in (("one", count), ("one", 0), ("two", count)):
        heard: list[Headway] = []
        merge_directories(params, adapter_family[1], tmp_path / out, heard.append)
        assert len({headway.last for headway in heard if headway.last}) == merged
    for name in ("adapter_model.safetensors", "adapter_config.json", "merge.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_command_line_merges_adapters_both_ways(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, adapters = adapter_family
    command = [sys.executable, "-c", "from flows.cli import main; main()", "merge", *map(str, adapters)]
    average = ["--set", "merge.method=average"]
    for out, extra in (("alone", []), ("model", ["--set", f"merge.base={base}"])):
        done = subprocess.run(
            [*command, "--out", str(tmp_path / out), *average, *extra],
            capture_output=True, text=True, cwd=Path(__file__).parents[2], env={**os.environ},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "average of 3 checkpoints" in done.stdout
    assert (tmp_path / "alone" / "adapter_model.safetensors").exists()
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("method", ["lore", "average"])
def test_tensors_merged_together_are_those_merged_one_by_one(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In groups of a few, of several shapes, and in groups that memory limits."""
    params, found = MergeParams(method=method), {}
    for at_once, held in ((1, 2**28), (3, 2**28), (16, 2**28), (16, 1)):
        monkeypatch.setattr(planned, "AT_ONCE", at_once)
        monkeypatch.setattr(planned, "HELD_AT_ONCE", held)
        out = tmp_path / f"{at_once}-{held}"
        report = merge_directories(params, adapter_family[1], out)
        found[at_once, held] = changes(out), report.tensors
    first, tensors = found[1, 2**28]
    assert found[16, 1][0].keys() == first.keys()
    for own, measured in found.values():
        assert measured.keys() == tensors.keys()
        for module, change in own.items():
            atol = (2e-2 if method == "lore" else 1e-6) * np.abs(first[module]).max()
            np.testing.assert_allclose(change, first[module], atol=atol)
    for module, change in found[16, 1][0].items():
        np.testing.assert_array_equal(change, first[module])  # each alone, either way


def test_lore_by_default_gives_on_a_base_what_it_gives_alone(tmp_path: Path) -> None:
    """Where the deviations are all spikes there is no noise to measure μ by; it converges all the same."""
    base = write_llama(tmp_path / "base", hidden=96)
    adapters = [
        write_adapter(tmp_path / f"checkpoint-{i}", base, i, r=1, target_modules=["q_proj"])
        for i in (1, 2, 3)
    ]
    adapters = double(adapters, tmp_path / "double")
    alone = merge_directories(MergeParams(method="lore", lam=1.0), adapters, tmp_path / "alone")
    on_base = merge_directories(
        MergeParams(method="lore", lam=1.0, base=str(base)), adapters, tmp_path / "full"
    )
    merged, full, before = (
        changes(tmp_path / "alone"),
        *(load_file(place / "model.safetensors") for place in (tmp_path / "full", base)),
    )
    for module, change in merged.items():
        name = module.removeprefix("base_model.model.") + ".weight"
        found, expected = alone.tensors[name].method, on_base.tensors[name].method
        assert found.threshold == pytest.approx(expected.threshold, rel=1e-6)
        assert max(found.ranks) > 0
        np.testing.assert_allclose(full[name] - before[name], change, atol=1e-6)


def test_two_spellings_of_a_base_do_no_harm_where_it_is_given(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, adapters = adapter_family
    for number, adapter in enumerate(adapters):
        copy = shutil.copytree(adapter, tmp_path / "run" / adapter.name) / "adapter_config.json"
        config = json.loads(copy.read_text()) | {"base_model_name_or_path": f"org/base-{number}"}
        copy.write_text(json.dumps(config))
    copies = sorted((tmp_path / "run").iterdir())
    average = MergeParams(method="average")
    with pytest.raises(BadInput, match="org/base-1, but .* where these are two spellings of it, name it"):
        merge_directories(average, copies, tmp_path / "out")
    merge_directories(average.model_copy(update={"base": str(base)}), copies, tmp_path / "out")
    merge_directories(average.model_copy(update={"full": True}), adapters, tmp_path / "full")
    one, other = (load_file(tmp_path / place / "model.safetensors") for place in ("out", "full"))
    assert all(torch.equal(one[name], other[name]) for name in one)
