"""Architectures other than the demo's merge and load: nothing depends on the names of a Llama."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.merge_checkpoints import merge_directories
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import ON_WEIGHTS_ALONE, read

SHARDED = "5KB"
METHOD_OF = {"average": False, "lore": False, "ties": True}
"""Method → whether it needs a base."""


def gpt2(tied: bool) -> Any:
    """Make Conv1D weights, in × out; with tied embeddings, no lm_head in the file."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=60, n_positions=16, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=tied,
                   bos_token_id=1, eos_token_id=2)
    )  # fmt: skip


def bert(tied: bool) -> Any:
    """Make an encoder with a pooler and two heads, one of which may be tied to the embeddings."""
    from transformers import BertConfig, BertForPreTraining

    return BertForPreTraining(
        BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                   max_position_embeddings=16, tie_word_embeddings=tied)
    )  # fmt: skip


def t5(tied: bool) -> Any:
    """Make an encoder with a decoder, and embeddings shared between the two."""
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, tie_word_embeddings=tied,
                 decoder_start_token_id=0)
    )  # fmt: skip


def mixtral(tied: bool) -> Any:
    """Make stacks of experts."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=2, num_local_experts=3, tie_word_embeddings=tied)
    )  # fmt: skip


FAMILIES: dict[Callable[[bool], Any], dict[str, list[list[int]]]] = {
    gpt2: {"input_ids": [[1, 5, 7]]},
    bert: {"input_ids": [[1, 5, 7]]},
    t5: {"input_ids": [[1, 5, 7]], "decoder_input_ids": [[0, 3]]},
    mixtral: {"input_ids": [[1, 5, 7]]},
}


def write_models(
    root: Path, family: Callable[[bool], Any], tied: bool, dtype: torch.dtype, sharded: bool
) -> list[Path]:
    """Save a base and three models near it, as transformers does."""
    torch.manual_seed(0)
    base = family(tied)
    places = [root / "base", *(root / f"checkpoint-{step}" for step in (1, 2, 3))]
    start = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    for place in places:
        with torch.no_grad():
            for name, parameter in base.named_parameters():
                parameter.copy_(
                    start[name] + (0.01 * torch.randn(parameter.shape) if place != places[0] else 0)
                )
        base.to(dtype).save_pretrained(place, max_shard_size=SHARDED if sharded else "5GB")
        base.float()
    return places


def load_and_run(out: Path, model: type, inputs: dict[str, list[list[int]]]) -> Any:
    """Load a merge without a missing or unexpected weight or a warning, and run it forward."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded, info = model.from_pretrained(out, output_loading_info=True, dtype="auto")  # type: ignore[attr-defined]
    assert not any(info.values()), info
    with torch.no_grad():
        output = loaded.eval()(**{name: torch.tensor(ids) for name, ids in inputs.items()})
    logits = output.prediction_logits if "prediction_logits" in output else output.logits
    assert torch.isfinite(logits).all()
    return loaded


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("sharded", [True, False], ids=["sharded", "single"])
def test_a_family_merges_and_loads(
    family: Callable[[bool], Any], tied: bool, sharded: bool, tmp_path: Path
) -> None:
    dtype = torch.bfloat16 if sharded else torch.float32
    base, *checkpoints = write_models(tmp_path, family, tied, dtype, sharded)
    assert (len(list(base.glob("*.safetensors"))) > 1) == sharded
    before = [read(place) for place in checkpoints]
    for method, needs_base in METHOD_OF.items():
        out = tmp_path / method
        params = MergeParams(
            method=method,
            base=str(base) if needs_base else None,
            max_shard_size=SHARDED if sharded else "5GB",
        )  # type: ignore[arg-type]
        merge_directories(params, checkpoints, out)
        loaded = load_and_run(out, type(family(tied)), FAMILIES[family])
        assert loaded.dtype == dtype
        assert read(out).keys() == before[0].keys()
    for name, tensor in read(tmp_path / "average").items():
        exact = np.mean([weights[name].double().numpy() for weights in before], 0)
        nearest = torch.from_numpy(exact).to(dtype)
        assert torch.allclose(tensor.float(), nearest.float(), rtol=2**-8 if sharded else 2**-23)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied_and_untied_ones_apart(tied: bool, tmp_path: Path) -> None:
    _, *checkpoints = write_models(tmp_path, gpt2, tied, torch.float32, sharded=False)
    merge_directories(MergeParams(method="average"), checkpoints, tmp_path / "out")
    loaded = load_and_run(tmp_path / "out", type(gpt2(tied)), FAMILIES[gpt2])
    assert torch.equal(loaded.lm_head.weight, loaded.transformer.wte.weight) == tied


@pytest.mark.parametrize("method", ON_WEIGHTS_ALONE)
def test_every_method_merges_an_encoder(method: str, tmp_path: Path) -> None:
    base, *checkpoints = write_models(tmp_path, bert, True, torch.bfloat16, sharded=False)
    row = METHODS[method]
    params = MergeParams(method=method, base=str(base) if row.base == "required" else None)  # type: ignore[arg-type]
    merge_directories(params, checkpoints[: row.at_most or 3], tmp_path / "out")
    load_and_run(tmp_path / "out", type(bert(True)), FAMILIES[bert])
