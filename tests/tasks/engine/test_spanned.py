"""LoRE of adapters on their base is LoRE of the models that PEFT makes of them, which are merged as whole matrices."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.measures import Averaged, LoreMeasures
from tasks.checkpoints.peft.adapted import Adapted
from tasks.engine import blocks, cut
from tasks.engine.progress import Headway
from tasks.merge_checkpoints import merge_directories, plan_directories, sweep_directories
from tasks.merging.lore import together
from tasks.parameters.merge import LoreParams, MergeParams, TiesParams
from tests.support.engine_runs import equal, run
from tests.support.tiny_adapters import double, unloaded, write_adapter, write_llama

SIGMA1 = LoreParams(mu=0.3, mu_scale="sigma1", tolerance=1e-12)
Family = tuple[Path, list[Path]]


def on(base: Path, lore: LoreParams = SIGMA1, **more: object) -> MergeParams:
    return MergeParams.model_validate({"method": "lore", "lore": lore, "base": str(base), **more})


@pytest.mark.parametrize(
    "lore",
    [
        SIGMA1,
        SIGMA1.model_copy(update={"rank_ratio": 0.1}),
        LoreParams(embeddings="average", tolerance=1e-12),
    ],
)
def test_the_merge_is_that_of_the_whole_models(
    adapter_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lore: LoreParams
) -> None:
    monkeypatch.setattr(cut, "BLOCK", 25)  # several blocks to a matrix
    base, adapters = adapter_family[0], double(adapter_family[1], tmp_path / "double")
    params = on(base, lore, lam=0.8)
    wide = params.model_copy(update={"base": str(_widened(base, tmp_path / "wide"))})
    whole = [unloaded(Path(wide.base), a, tmp_path / "whole" / a.name, torch.float64) for a in adapters]
    plan = plan_directories({tmp_path / "out": wide}, adapters)
    # PEFT writes an embedding that it adapts beside its factors
    assert plan.shapes.keys() - plan.spanned <= {"model.embed_tokens.weight"}
    assert not plan_directories({tmp_path / "out": wide}, whole).spanned
    found = merge_directories(wide, adapters, tmp_path / "out").tensors
    expected = merge_directories(wide, whole, tmp_path / "expected").tensors
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "expected" / "model.safetensors").items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        own, other = found[name], expected[name]
        if name not in plan.spanned:
            continue
        assert own.factors is not None
        assert other.deviation is not None
        assert own.factors.norms == pytest.approx(other.deviation.norms, rel=1e-6, abs=1e-12)
        assert own.factors.cosines == pytest.approx(other.deviation.cosines, rel=1e-6, abs=1e-6)
        if isinstance(other.method, LoreMeasures):
            assert isinstance(own.method, LoreMeasures)
            assert own.method.ranks == other.method.ranks


def test_what_no_adapter_changes_is_the_base_bit_by_bit(adapter_family: Family, tmp_path: Path) -> None:
    base, adapters = adapter_family
    report = merge_directories(on(base), adapters, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    same = [n for n, t in load_file(base / "model.safetensors").items() if torch.equal(t, merged[n])]
    assert same
    for name in same:
        assert report.tensors[name].method == Averaged(identical=True)
        factors = report.tensors[name].factors
        assert factors is not None
        assert factors.rank == 0


def test_variants_share_a_read_and_are_the_merges_alone(adapter_family: Family, tmp_path: Path) -> None:
    base, adapters = adapter_family
    variants = {tmp_path / f"{lam}": on(base, lam=lam) for lam in (0.0, 1.0)}
    sweep_directories(variants, adapters)
    for out, params in variants.items():
        merge_directories(params, adapters, tmp_path / "alone" / out.name)
        one, other = (place / "model.safetensors" for place in (out, tmp_path / "alone" / out.name))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_compiled_loops_change_no_bit(
    adapter_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(cut, "BLOCK", 25)
    base, adapters = adapter_family
    for name, compiled_from in {"numpy": 2**40, "compiled": 0}.items():
        monkeypatch.setattr(blocks, "COMPILED_FROM", compiled_from)
        merge_directories(on(base, dtype=dtype), adapters, tmp_path / name)
    one, other = (tmp_path / name / "model.safetensors" for name in ("numpy", "compiled"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "params",
    [
        MergeParams(method="ties"),
        MergeParams(method="iso_c"),
        MergeParams(method="average"),
        MergeParams(method="lore", lore=LoreParams(combine="ties"), ties=TiesParams(density=0.5)),
    ],
    ids=lambda params: params.method,
)
def test_other_methods_take_the_models(adapter_family: Family, tmp_path: Path, params: MergeParams) -> None:
    base, adapters = adapter_family
    own = params.model_copy(update={"base": str(base)})
    assert not plan_directories({tmp_path / "out": own}, adapters).spanned


def test_tensors_that_an_adapter_holds_whole_are_merged_whole(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    adapters = [
        write_adapter(
            tmp_path / f"checkpoint-{i}", base, i, target_modules=["q_proj"], modules_to_save=["down_proj"]
        )
        for i in (1, 2, 3)
    ]
    plan = plan_directories({tmp_path / "out": on(base)}, adapters)
    assert {name for name in plan.shapes if name not in plan.spanned} == {
        f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)
    }
    merge_directories(on(base), adapters, tmp_path / "out")
    whole = [unloaded(base, adapter, tmp_path / "whole" / adapter.name) for adapter in adapters]
    merge_directories(on(base), whole, tmp_path / "expected")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "expected" / "model.safetensors").items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=2e-6)


def test_nan_in_a_factor_names_its_adapter(adapter_family: Family, tmp_path: Path) -> None:
    base, adapters = adapter_family[0], double(adapter_family[1], tmp_path / "double")
    path = adapters[1] / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, path)
    with pytest.raises(BadInput, match=r"^checkpoint-2: tensor .* holds NaN or Inf"):
        merge_directories(on(base), adapters, tmp_path / "out")


def test_no_whole_matrix_is_read_through_an_adapter(
    adapter_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, read = [], Adapted.read

    def noted(self: Adapted, name: str, *place: Any) -> Any:
        through.append(name)
        return read(self, name, *place)

    monkeypatch.setattr(Adapted, "read", noted)
    merge_directories(on(adapter_family[0]), adapter_family[1], tmp_path / "out")
    assert set(through) <= {"model.embed_tokens.weight"}


def _widened(base: Path, directory: Path) -> Path:
    """Write a model again in float64."""
    directory.mkdir()
    for path in base.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    tensors = load_file(base / "model.safetensors")
    save_file({n: t.double() for n, t in tensors.items()}, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.mark.parametrize("finished", [1, 4])
def test_a_merge_that_stopped_within_a_group_goes_on_to_the_same_bytes(
    adapter_family: Family, tmp_path: Path, finished: int
) -> None:
    """Tensors that are written are not written again, but solved again beside the others."""
    base, adapters = adapter_family
    plan = plan_directories({tmp_path / "out": on(base, LoreParams())}, adapters)
    assert max(map(len, plan.groups)) > finished
    with mock.patch.object(together, "solve_together", wraps=together.solve_together) as solved:
        undisturbed, measures = run(plan, tmp_path / "undisturbed")
    sizes, seen = [len(call.args[0]) for call in solved.call_args_list], set[str]()

    def stop(headway: Headway) -> None:
        seen.add(headway.last)
        if len(seen - {""}) == finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "stopped", on_progress=stop)
    with mock.patch.object(together, "solve_together", wraps=together.solve_together) as solved:
        tensors, resumed = run(plan, tmp_path / "stopped")
    again = [len(call.args[0]) for call in solved.call_args_list]
    assert again
    assert (
        sorted(again) == sorted(sizes)[-len(again) :]
    )  # whole groups, one with a finished tensor among them
    assert equal(tensors, undisturbed)
    assert resumed == measures


def test_variants_of_a_sweep_have_the_bytes_that_they_have_alone(
    adapter_family: Family, tmp_path: Path
) -> None:
    """Also where they ask for different thresholds."""
    base, adapters = adapter_family
    variants = {tmp_path / str(mu): on(base, LoreParams(mu=mu)) for mu in (1.05, 2.0)}
    sweep_directories(variants, adapters)
    for directory, params in variants.items():
        merge_directories(params, adapters, tmp_path / "alone" / directory.name)
        one, other = (root / "model.safetensors" for root in (directory, tmp_path / "alone" / directory.name))
        assert one.read_bytes() == other.read_bytes()


def test_a_group_holds_the_factors_of_all_and_blocks_of_one(adapter_family: Family, tmp_path: Path) -> None:
    """Alone, and on a base, where blocks are added to one after the other."""
    base, adapters = adapter_family
    alone = plan_directories({tmp_path / "out": MergeParams(method="lore")}, adapters)
    on_base = plan_directories({tmp_path / "full": on(base, LoreParams())}, adapters)
    added = 8 * 4 * 4 * 2**18
    for plan in (alone, on_base):
        inputs = plan.changes or dict.fromkeys(plan.shapes, alone.inputs)
        factors = max(
            sum(
                24 * sum(plan.shapes[name]) * sum(rank(source, name) for source in inputs[name])
                for name in group
            )
            for group in plan.groups
            if len(group) > 1
        )
        rest = plan.bytes_held - (added if plan is on_base else 0)
        assert factors < rest < 2 * factors


def rank(source: Any, name: str) -> int:
    found: int = source.factors[name].rank if hasattr(source, "factors") else source.rank(name)
    return found
