"""A base seen through an adapter is what PEFT's merge_and_unload makes of the two."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import is_adapter
from tasks.checkpoints.models import open_models
from tasks.checkpoints.numbers import decode
from tasks.checkpoints.peft.adapted import adapt
from tasks.checkpoints.peft.adapter import read_adapter
from tasks.checkpoints.weights import NotFinite, open_weights
from tests.support.tiny_adapters import unloaded, write_adapter, write_gpt2, write_llama

SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {"target_modules": ["q_proj", "down_proj"]},
    "rank-stabilised": {"target_modules": ["q_proj", "o_proj"], "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "rank_pattern": {"q_proj": 2, "1.mlp.up_proj": 4},
        "alpha_pattern": {"layers.0.self_attn.q_proj": 7, "up_proj": 2},
    },
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "whole tensors": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]},
    "an embedding whole": {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
    "biases of adapted layers": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "all biases": {"target_modules": ["q_proj"], "bias": "all"},
    "everything": {"target_modules": "all-linear"},
    "dora": {"target_modules": ["q_proj", "down_proj", "v_proj"], "use_dora": True},
    "dora, rank-stabilised, beside whole tensors": {
        "target_modules": ["o_proj"],
        "use_dora": True,
        "use_rslora": True,
        "modules_to_save": ["lm_head"],
    },
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2"))


def seen_through(adapter: Path, base: Path) -> dict[str, np.ndarray]:
    source = adapt(read_adapter(adapter, "adapter"), open_weights(base, "base"))
    return {
        name: source.read(name, 0, int(np.prod(info.shape)), np.float64).reshape(info.shape)
        for name, info in source.tensors.items()
    }


def assert_unloaded(adapter: Path, base: Path, out: Path) -> None:
    """Compare with PEFT computing in float64; and see that the adapter changed something."""
    expected = load_file(unloaded(base, adapter, out, torch.float64) / "model.safetensors")
    found = seen_through(adapter, base)
    before = load_file(base / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=0, atol=2e-7)
    assert any(not np.allclose(found[name], before[name], atol=1e-4) for name in found)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_llama_seen_through_an_adapter_is_merge_and_unload(
    llama: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    assert_unloaded(write_adapter(tmp_path / "adapter", llama, 1, **settings), llama, tmp_path / "out")


@pytest.mark.parametrize("targets", [["c_attn", "c_proj"], ["c_proj", "c_fc", "wpe"], ["c_attn", "lm_head"]])
def test_weights_that_lie_in_by_out_are_merge_and_unload(
    gpt2: Path, tmp_path: Path, targets: list[str]
) -> None:
    if "lm_head" in targets:
        gpt2 = untied(gpt2, tmp_path / "untied")
    adapter = write_adapter(tmp_path / "adapter", gpt2, 1, target_modules=targets, bias="lora_only")
    assert_unloaded(adapter, gpt2, tmp_path / "out")


def untied(base: Path, directory: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    config = GPT2Config.from_pretrained(base)
    config.tie_word_embeddings = False
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


def renamed(base: Path, directory: Path, rename: Callable[[str], str]) -> Path:
    directory.mkdir()
    tensors = load_file(base / "model.safetensors")
    save_file({rename(name): tensor for name, tensor in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text((base / "config.json").read_text())
    return directory


@pytest.mark.parametrize(
    "rename", [lambda name: name.removeprefix("transformer."), lambda name: f"gpt2.{name}"]
)
def test_a_base_saved_with_another_prefix_is_matched(
    gpt2: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", gpt2, 1, target_modules=["c_attn"], bias="lora_only")
    expected = seen_through(adapter, gpt2)
    found = seen_through(adapter, renamed(gpt2, tmp_path / "renamed", rename))
    assert all(np.array_equal(found[rename(name)], tensor) for name, tensor in expected.items())


def test_any_part_of_a_dora_tensor_can_be_read(llama: Path, tmp_path: Path) -> None:
    """Norms are of whole rows, whichever part is asked for."""
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["down_proj"], use_dora=True)
    source = adapt(read_adapter(adapter, "adapter"), open_weights(llama, "base"))
    name = "model.layers.0.mlp.down_proj.weight"
    whole = source.read(name, 0, 16 * 40, np.float64)
    for first, count in ((0, 40), (40, 80), (5, 100), (39, 2), (639, 1), (10, 0)):
        part = source.read(name, first, count, np.float64)
        np.testing.assert_allclose(part, whole[first : first + count], rtol=1e-12)


def test_dora_of_weights_that_lie_in_by_out_is_refused(gpt2: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", gpt2, 1, target_modules=["c_attn"], use_dora=True)
    with pytest.raises(BadInput, match="c_attn.weight lies as in × out, where DoRA's norms are not those"):
        seen_through(adapter, gpt2)


def test_any_part_of_a_tensor_can_be_read(gpt2: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", gpt2, 1, target_modules=["c_attn"])
    source = adapt(read_adapter(adapter, "adapter"), open_weights(gpt2, "base"))
    name = "transformer.h.0.attn.c_attn.weight"
    whole = source.read(name, 0, 16 * 48, np.float32)
    for first, count in ((0, 48), (48, 96), (5, 100), (47, 2), (767, 1), (10, 0)):
        part = source.read(name, first, count, np.float32)
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, whole[first : first + count], rtol=0, atol=1e-7)


def test_what_would_be_stored_is_rounded_to_the_dtype_of_the_base(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", dtype=torch.bfloat16)
    adapter = write_adapter(tmp_path / "adapter", base, 1, target_modules=["q_proj"], dtype=torch.bfloat16)
    source = adapt(read_adapter(adapter, "adapter"), open_weights(base, "base"))
    name = "model.layers.0.self_attn.q_proj.weight"
    exact = torch.tensor(source.read(name, 0, 256, np.float64)).bfloat16().double().numpy()
    assert np.array_equal(decode(source.stored(name, 0, 256), "BF16", np.float64), exact)
    other = "model.norm.weight"
    assert np.array_equal(source.stored(other, 0, 16), open_weights(base, "base").stored(other, 0, 16))


def test_nan_names_adapter_and_tensor(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["q_proj"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[Q + "lora_B.weight"][3, 1] = float("nan")
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(NotFinite, match="adapter: tensor model.layers.0.self_attn.q_proj.weight holds NaN"):
        seen_through(adapter, llama)


Q = "base_model.model.model.layers.0.self_attn.q_proj."


def say(**settings: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def put(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "adapter_model.safetensors"
        tensors = load_file(path)
        tensors = {key: value for key, value in tensors.items() if key != name}
        save_file(tensors if tensor is None else {**tensors, name: tensor}, path)

    return change


def pickled(directory: Path) -> None:
    (directory / "adapter_model.safetensors").unlink()
    (directory / "adapter_model.bin").write_bytes(pickle.dumps({}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            say(use_qalora=True),
            "adapter_config.json: use_qalora is more than low-rank factors; merge it into",
        ),
        (
            say(use_dora=True),
            "use_dora is true, which does not fit the tensors of .*q_proj; save the adapter again",
        ),
        (
            put(Q + "lora_magnitude_vector", torch.ones(16)),
            "use_dora is false, which does not fit the tensors of",
        ),
        (say(target_parameters=["experts.gate_up_proj"]), "target_parameters is more than low-rank factors"),
        (say(trainable_token_indices=[1]), "trainable_token_indices is more than low-rank factors"),
        (say(peft_type="IA3"), "peft_type is IA3, not LORA"),
        (say(init_lora_weights="pissa_niter_4"), "init_lora_weights pissa_niter_4 changes the base"),
        (say(lora_alpha="much"), "adapter_config.json: lora_alpha: .*save the adapter again"),
        (say(alpha_pattern={"(": 2}), "alpha_pattern is no regular expression"),
        (say(alpha_pattern={"(?i)a": 2}), "alpha_pattern is no regular expression"),
        (say(alpha_pattern={"a{99999999999}": 2}), "alpha_pattern is no regular expression"),
        (say(alpha_pattern={"(a+)+b": 2}), "takes too long to match"),
        (say(alpha_pattern={"a?" * 30 + "a" * 30: 2}), "takes too long to match"),
        (say(alpha_pattern={"a" * 2000: 2}), "takes too long to match"),
        (pickled, "has no adapter_model.safetensors; its adapter_model.bin is a pickle"),
        (put(Q + "lora_B.weight", None), "layers.0.self_attn.q_proj has only one of its two LoRA factors"),
        (put(Q + "lora_B.weight", torch.ones(16, 4)), r"q_proj are \(16, 4\) and \(3, 16\)"),
        (put(Q + "lora_B.weight", torch.ones(17, 3)), r"q_proj.weight is \(17, 16\), but \(16, 16\) in base"),
        (put(Q + "lora_B.weight", torch.ones(16, 3, dtype=torch.int8)), r"lora_B.weight is quantised \(I8\)"),
        (put(Q + "lora_B.bias", torch.ones(16)), "q_proj.lora_B.bias is more than a low-rank factor"),
        (put("lm_head.weight", torch.ones(2)), "lm_head.weight does not begin with base_model.model."),
        (
            put("base_model.model.score.weight", torch.ones(2)),
            "changes score.weight, which base does not have",
        ),
        (
            put("base_model.model.model.norm.weight", torch.ones(2)),
            r"model.norm.weight is \(2,\), but \(16,\) in base; the adapter was trained on /.*/llama",
        ),
    ],
)
def test_what_is_not_exactly_low_rank_factors_on_this_base_is_refused(
    llama: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["q_proj"])
    damage(adapter)
    with pytest.raises(BadInput, match=sentence):
        seen_through(adapter, llama)


def test_a_module_that_the_base_lacks_is_refused(llama: Path, gpt2: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["q_proj"])
    with pytest.raises(
        BadInput, match=r"q_proj.weight, which base does not have; the adapter was trained on /"
    ):
        seen_through(adapter, gpt2)


def test_a_quantised_base_is_refused(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["q_proj"])
    base = renamed(llama, tmp_path / "base", str)
    tensors = load_file(base / "model.safetensors")
    quantised = {name: t.to(torch.uint8) if "q_proj" in name else t for name, t in tensors.items()}
    save_file(quantised, base / "model.safetensors")
    with pytest.raises(BadInput, match=r"base: tensor .*q_proj.weight is quantised \(U8\)"):
        seen_through(adapter, base)


def test_square_weights_of_unknown_orientation_are_refused(gpt2: Path, tmp_path: Path) -> None:
    """PEFT notes one orientation: that of the last layer, here a Linear after Conv1D."""
    base = untied(gpt2, tmp_path / "untied")
    adapter = write_adapter(tmp_path / "adapter", base, 1, target_modules=["c_attn", "c_proj", "lm_head"])
    with pytest.raises(BadInput, match="attn.c_proj.weight may lie either way round"):
        seen_through(adapter, base)


@pytest.mark.parametrize(
    "settings", [{"target_modules": ["embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}]
)
def test_an_embedding_that_is_also_the_head_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = write_llama(tmp_path / "base", tied=True)
    adapter = write_adapter(tmp_path / "adapter", base, 1, **{"target_modules": ["q_proj"], **settings})
    with pytest.raises(BadInput, match="model.embed_tokens.weight, which base also uses as its output head"):
        seen_through(adapter, base)


def test_where_the_flag_is_missing_the_class_s_default_ties(gpt2: Path, tmp_path: Path) -> None:
    """config.json of transformers 4 does not say that GPT-2's head is its embedding."""
    base = tmp_path / "base"
    shutil.copytree(gpt2, base)
    config = json.loads((base / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (base / "config.json").write_text(json.dumps(config))
    adapter = write_adapter(tmp_path / "adapter", base, 1, target_modules=["wte"])
    with pytest.raises(BadInput, match="wte.weight, which base also uses as its output head"):
        seen_through(adapter, base)


def test_a_whole_model_is_no_adapter(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["q_proj"])
    assert is_adapter(adapter)
    assert not is_adapter(llama)
    (adapter / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    assert not is_adapter(adapter)


def test_adapters_of_two_bases_are_refused(llama: Path, tmp_path: Path) -> None:
    adapters = [write_adapter(tmp_path / f"{i}", llama, i, target_modules=["q_proj"]) for i in (1, 2)]
    say(base_model_name_or_path="org/other", revision="v2")(adapters[1])
    with pytest.raises(BadInput, match="two: was trained on org/other@v2, but one on .*must share one base"):
        open_models(adapters, ["one", "two"], None)


def test_an_adapter_beside_a_model_takes_the_base_that_it_names(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, 1, target_modules=["q_proj"])
    _, source = open_models([llama, adapter], ["llama", "adapter"], None)
    assert source.directory == llama
    assert source.label == "adapter"
    assert source.essential_files == [
        adapter / "adapter_config.json",
        adapter / "adapter_model.safetensors",
        llama / "model.safetensors",
        llama / "config.json",
    ]
    say(base_model_name_or_path="org/elsewhere")(adapter)
    with pytest.raises(BadInput, match="is an adapter of org/elsewhere; set merge.base to its directory"):
        open_models([llama, adapter], ["llama", "adapter"], None)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_keys_may_hold_the_name_of_the_adapter(llama: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """As in the state dict of PEFT's model, which some trainers save as it is."""
    adapter = write_adapter(tmp_path / "adapter", llama, 1, **settings)
    expected, weights = seen_through(adapter, llama), adapter / "adapter_model.safetensors"
    tensors = {
        re.sub(r"(lora_[AB])\.weight|(lora_embedding_[AB])$|(?<=lm_head)(?=\.weight)", _named, name): tensor
        for name, tensor in load_file(weights).items()
    }
    assert tensors.keys() != load_file(weights).keys()
    save_file(tensors, weights)
    found = seen_through(adapter, llama)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    save_file(tensors | {name.replace("default", "other"): t.clone() for name, t in tensors.items()}, weights)
    with pytest.raises(BadInput, match="holds several adapters; save one of them by itself"):
        read_adapter(adapter, "adapter")


def _named(match: re.Match[str]) -> str:
    linear, embedding = match.groups()
    if linear:
        return f"{linear}.default.weight"
    return f"{embedding}.default" if embedding else ".modules_to_save.default"
