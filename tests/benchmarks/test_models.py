"""The checkpoints that benchmarks merge."""

import math

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmarks.models import CHECKPOINTS, SCALES, Llama, models

SMALL = Llama(layers=1, hidden=256, intermediate=96, vocabulary=512)


def test_parameters_grow_as_the_scales_say() -> None:
    one = SCALES[1].parameters
    assert SCALES[2].parameters == pytest.approx(220e6, rel=0.01)
    for scale, llama in SCALES.items():
        assert llama.parameters == pytest.approx(scale * one, rel=1e-4)


def test_transformers_knows_every_tensor(tmp_path) -> None:
    from transformers import LlamaForCausalLM

    _, info = LlamaForCausalLM.from_pretrained(models(tmp_path, SMALL) / "base", output_loading_info=True)
    assert not any(info.values())


def test_checkpoints_lie_as_far_from_the_base_as_said(tmp_path) -> None:
    """0.2 % of 0.02 in noise, as much of rank 16; rounding to bf16 comes on top."""
    directory = models(tmp_path, SMALL)
    base = load_file(directory / "base" / "model.safetensors")["lm_head.weight"].double()
    for name in CHECKPOINTS:
        delta = load_file(directory / name / "model.safetensors")["lm_head.weight"].double() - base
        rounding = 2 * (base.abs() * 2**-8).square().mean() / 12
        assert delta.std().item() == pytest.approx(math.sqrt(2 * 4e-5**2 + rounding), rel=0.2)
        assert torch.linalg.svdvals(delta)[15] > 1.2 * torch.linalg.svdvals(delta)[16]


def test_the_same_bytes_every_time_and_no_two_checkpoints_alike(tmp_path) -> None:
    first, second = (models(tmp_path / place, SMALL) for place in "ab")
    names = ("base", *CHECKPOINTS)
    written = [(first / name / "model.safetensors").read_bytes() for name in names]
    assert written == [(second / name / "model.safetensors").read_bytes() for name in names]
    assert len(set(written)) == 4


def test_what_is_there_is_not_written_again(tmp_path) -> None:
    file = models(tmp_path, SMALL) / "base" / "model.safetensors"
    written = file.stat().st_mtime_ns
    models(tmp_path, SMALL)
    assert file.stat().st_mtime_ns == written
