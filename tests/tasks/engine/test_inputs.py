"""Models of other releases and classes merge as one architecture; what differs without harm is said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tasks.base.errors import BadInput
from tasks.base.records.merge import MergeReport
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import Tensors
from tests.support.tiny import write_checkpoint

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 6,
}  # fmt: skip
TIED = {**LLAMA, "tie_word_embeddings": True}
GEMMA = {**LLAMA, "model_type": "gemma"}
TABLE, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"
AVERAGE = MergeParams(method="average")


def weights(seed: int, head: bool = False) -> Tensors:
    noise = torch.Generator().manual_seed(seed)
    own = {TABLE: torch.randn(6, 4, generator=noise), LAYER: torch.randn(8, 4, generator=noise)}
    return own | ({HEAD: own[TABLE].clone()} if head else {})


def merged(
    root: Path, models: list[Tensors], params: MergeParams = AVERAGE, config: Mapping[str, Any] = TIED
) -> tuple[Tensors, MergeReport]:
    places = [write_checkpoint(root / "run", i, one, config=config) for i, one in enumerate(models, 1)]
    report = merge_directories(params, places, root / "out")
    return load_file(root / "out" / "model.safetensors"), report


def mean(models: list[Tensors], name: str) -> Any:
    return np.mean([one[name].double().numpy() for one in models], 0).astype(np.float32)


@pytest.mark.parametrize("holders", [(0,), (1,), (0, 1, 2)])
def test_a_tied_head_that_only_some_store_is_left_out(tmp_path: Path, holders: tuple[int, ...]) -> None:
    models = [weights(i, head=i in holders) for i in range(3)]
    tensors, report = merged(tmp_path, models)
    assert tensors.keys() == {TABLE, LAYER}
    assert np.array_equal(tensors[TABLE].numpy(), mean(models, TABLE))
    assert any(HEAD in note for note in report.notes) == (len(holders) < 3)


def test_a_tied_head_of_the_base_alone_is_left_out(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path, 9, weights(0, head=True), config=TIED)
    models = [weights(i) for i in (1, 2)]
    params = MergeParams(method="task_arithmetic", base=str(base), lam=0.5)
    tensors, report = merged(tmp_path, models, params)
    assert tensors.keys() == {TABLE, LAYER}
    assert np.allclose(tensors[LAYER].numpy(), mean(models, LAYER), atol=1e-6)
    assert any(HEAD in note for note in report.notes)


def test_a_head_that_is_not_tied_is_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"checkpoint-1: tensor lm_head\.weight is missing"):
        merged(tmp_path, [weights(1), weights(2, head=True)], config=LLAMA)


def test_a_tie_by_the_class_s_default_is_merged_once_by_methods_that_draw(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path, 9, weights(0, head=True), config=GEMMA)
    params = MergeParams(method="dare", base=str(base))
    tensors, _ = merged(tmp_path, [weights(i, head=True) for i in (1, 2)], params, GEMMA)
    assert tensors.keys() == {TABLE, LAYER}
    apart = [weights(i, head=True) | {HEAD: torch.ones(6, 4)} for i in (1, 2)]
    with pytest.raises(BadInput, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        merged(tmp_path / "apart", apart, params, GEMMA)


@pytest.mark.parametrize(
    "buffer", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.embeddings.position_ids"]
)
@pytest.mark.parametrize("holders", [(0,), (1,), (0, 1)])
def test_a_computed_buffer_that_only_some_store_is_left_out(
    tmp_path: Path, buffer: str, holders: tuple[int, ...]
) -> None:
    values = torch.arange(4) if buffer.endswith("ids") else torch.ones(4)
    models = [weights(i) | ({buffer: values} if i in holders else {}) for i in range(2)]
    tensors, report = merged(tmp_path, models)
    everywhere = len(holders) == 2
    assert (buffer in tensors) == everywhere
    assert any(buffer in note for note in report.notes) != everywhere
    assert np.array_equal(tensors[LAYER].numpy(), mean(models, LAYER))


@pytest.mark.parametrize("prefix", ["", "language_model.model.", "model.language_model."])
def test_a_base_of_another_class_is_matched_by_the_rest_of_its_names(tmp_path: Path, prefix: str) -> None:
    start, models = weights(0), [weights(i) for i in (1, 2)]
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in start.items()}
    base = write_checkpoint(tmp_path, 9, renamed, config=TIED)
    params = MergeParams(method="task_arithmetic", base=str(base), lam=1.0)
    tensors, report = merged(tmp_path, models, params)
    for name in (TABLE, LAYER):
        one, other, origin = (own[name].double().numpy() for own in (*models, start))
        assert np.allclose(tensors[name].numpy(), one + other - origin, atol=1e-6)
    assert any(f"{prefix}embed_tokens.weight what the others name {TABLE}" in note for note in report.notes)


def test_names_that_do_not_meet_are_both_named(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path, 9, {"wte.weight": torch.ones(6, 4)}, config=TIED)
    params = MergeParams(method="task_arithmetic", base=str(base))
    with pytest.raises(
        BadInput,
        match=r"tensor wte\.weight is missing, but base .* has it, and not model\.embed_tokens\.weight",
    ):
        merged(tmp_path, [weights(1), weights(2)], params)


def test_configurations_of_two_releases_are_one_with_a_note(tmp_path: Path) -> None:
    old = {**TIED, "rope_theta": 5e5, "torch_dtype": "float32", "transformers_version": "4.44.0"}
    new = {
        **TIED, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "dtype": "float32", "head_dim": 2,
        "pad_token_id": None, "attention_bias": False,
    }  # fmt: skip
    models = [weights(i) for i in (1, 2)]
    places = [
        write_checkpoint(tmp_path, i, own, config=config)
        for i, (own, config) in enumerate(zip(models, (old, new), strict=True), 1)
    ]
    report = merge_directories(AVERAGE, places, tmp_path / "out")
    assert any("rope_parameters, rope_theta" in note and "mean the same" in note for note in report.notes)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == new
    (places[0] / "config.json").write_text(json.dumps({**old, "rope_theta": 1e6}))
    with pytest.raises(BadInput, match=r"rope_\w+ in config\.json is .*500000\.0.*, but .*1000000\.0"):
        merge_directories(AVERAGE, places, tmp_path / "other")


def test_tokens_that_the_newest_adds_are_written(tmp_path: Path) -> None:
    places = [write_checkpoint(tmp_path, i, weights(i), config=TIED) for i in (1, 2)]
    model = {"type": "WordLevel", "vocab": {"a": 0}}
    added = [{"id": 1, "content": "<x>"}]
    for place, tokens in zip(places, ([], added), strict=True):
        (place / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": tokens}))
        (place / "chat_template.jinja").write_text(place.name)
    report = merge_directories(AVERAGE, places, tmp_path / "out")
    assert any("add other tokens" in note for note in report.notes)
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"] == added
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "checkpoint-2"
