"""What stands in the way of a merge is said before a single weight is read."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.weights import SafetensorsModel
from tasks.engine.plan import Plan
from tasks.merge_checkpoints import plan_directories
from tasks.merging.methods import METHODS
from tasks.parameters.merge import CalibrationParams, EmaParams, LoreParams, MergeParams
from tests.support.engine_runs import params_for, plan_for, write_all, write_models
from tests.support.tiny import CONFIG, random_tensors

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.fixture(autouse=True)
def no_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*anything: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(SafetensorsModel, "read", read)
    monkeypatch.setattr(SafetensorsModel, "stored", read)


def plan_merge(params: MergeParams, checkpoints: Sequence[Path], out: Path) -> Plan:
    return plan_directories({out: params}, checkpoints)


def change(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    """Return what replaces a tensor of a checkpoint, or takes it away."""

    def damage(directory: Path) -> None:
        tensors = {**random_tensors(2), name: tensor}
        save_file({n: t for n, t in tensors.items() if t is not None}, directory / "model.safetensors")

    return damage


def put(name: str, value: Any) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(
        value if isinstance(value, str) else json.dumps(value)
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (change("tall", torch.ones(5, 12)), r"checkpoint-2: tensor tall is \(5, 12\), but \(12, 5\) in checkpoint-1; checkpoints of one merge must share one architecture"),
        (change("new", torch.ones(1)), "checkpoint-1: tensor new is missing, but checkpoint-2 has it"),
        (change("tall", None), "checkpoint-2: tensor tall is missing, but checkpoint-1 has it"),
        (change("tall", torch.ones(12, 5).int()), "checkpoint-2: tensor tall is of dtype I32, but of dtype F32"),
        (change("tall", torch.ones(12, 5).to(torch.float8_e5m2)), r"checkpoint-2: tensor tall is quantised \(F8_E5M2\)"),
        (put("config.json", {**CONFIG, "hidden_size": 9}), "checkpoint-2: hidden_size in config.json is 9, but 8 in checkpoint-1"),
        (put("config.json", {**CONFIG, "quantization_config": {}}), "checkpoint-2: config.json has a quantization_config"),
        (put("config.json", ""), "checkpoint-2/config.json: not readable as JSON"),
        (lambda directory: (directory / "config.json").unlink(), "checkpoint-2/config.json: missing"),
        (put("tokenizer.json", {"model": {"vocab": {"b": 1}}}), "checkpoint-2: tokenizer.json differs"),
        (put("generation_config.json", "{,}"), "checkpoint-2/generation_config.json: not readable as JSON"),
    ],
)  # fmt: skip
def test_checkpoints_that_do_not_fit_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    models = write_models(tmp_path / "training")
    damage(models[2])
    with pytest.raises(BadInput, match=sentence) as caught:
        plan_merge(params_for("average"), models[1:], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_base_has_to_fit_too(tmp_path: Path) -> None:
    models = write_models(tmp_path / "training")
    change("tall", torch.ones(12, 6))(models[0])
    with pytest.raises(BadInput, match=r"checkpoint-1: tensor tall is \(12, 5\), but \(12, 6\) in base"):
        plan_for(params_for("task_arithmetic"), models)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_plans_and_refuses_what_it_cannot_do(method: str, tmp_path: Path) -> None:
    row, models = METHODS[method], write_models(tmp_path / "training")
    base = str(models[0]) if row.base == "required" else None
    (tmp_path / "texts.txt").write_text("one\n")
    text = {"calibration": CalibrationParams(file=str(tmp_path / "texts.txt"))} if row.measures else {}
    params = params_for(method, base=base, **text)
    plan = plan_merge(params, models[1 : 1 + (row.at_most or 3)], tmp_path / "out")
    assert plan.method is row
    assert sorted(name for group in plan.groups for name in group) == sorted(random_tensors(0))
    assert plan.bytes_held > 0
    if row.base == "required":
        with pytest.raises(
            BadInput, match=f"merge.base: {method} needs the model the checkpoints started from"
        ):
            plan_merge(params_for(method), models[1:], tmp_path / "out")
    if row.at_least > 1:
        with pytest.raises(BadInput, match=f"nothing to merge: 1 checkpoint is named, and {method} needs 2"):
            plan_merge(params_for(method, base=base), models[1:2], tmp_path / "out")
    if row.at_most:
        with pytest.raises(BadInput, match=f"merge.method: {method} takes 2 checkpoints, but 3 are named"):
            plan_merge(params_for(method, base=base), models[1:], tmp_path / "out")
    for key, value in (("lam", 0.5), ("weights", (1.0, 1.0, 1.0))):
        if key not in row.sections:
            with pytest.raises(
                BadInput, match=f"merge.{key}: method {method} does not read it; leave it out"
            ):
                plan_merge(
                    params_for(method, base=base, **{key: value}),
                    models[1 : 1 + (row.at_most or 3)],
                    tmp_path / "out",
                )


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (params_for("lore", ties={"density": (0.1, 0.2)}), "merge.ties.density: 2 values for 3 checkpoints; give one for each"),
        (params_for("average", weights=(1.0, 2.0)), "merge.weights: 2 weights for 3 checkpoints; give one for each"),
        (params_for("average", weights=(1.0, -2.0, 1.0)), "merge.weights: .* add up to 0"),
        (MergeParams(method="lore", lore=LoreParams(anchor=7)), r"merge.lore.anchor: step 7 is not merged; the steps are \[1, 2, 3\]"),
        (params_for("task_arithmetic", base="/nowhere"), "/nowhere: no such directory"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(tmp_path: Path, params: MergeParams, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        plan_merge(params, write_models(tmp_path / "training")[1:], tmp_path / "out")


def test_one_trim_of_the_whole_model_has_one_density(tmp_path: Path) -> None:
    base, *models = write_models(tmp_path / "training")
    density = [{"match": "mlp", "value": 0.2}, {"value": 0.5}]
    params = params_for("ties", ties={"scope": "model", "density": density}, base=str(base))
    with pytest.raises(
        BadInput, match="merge.ties.density: varies over the model, and scope model trims all"
    ):
        plan_merge(params, models, tmp_path / "out")


def planned(tmp_path: Path, dtypes: tuple[str, ...], dtype: str = "auto") -> Plan:
    models = [{"w": torch.ones(2, 3, dtype=FLOATS[d]), "ids": torch.arange(3)} for d in ("F32", *dtypes)]
    return plan_for(params_for("average", dtype=dtype), write_all(tmp_path, models))


@pytest.mark.parametrize(
    ("dtypes", "written"),
    [
        (("BF16", "BF16"), "BF16"),
        (("F16", "F16", "F16"), "F16"),
        (("F64", "F64"), "F64"),
        (("BF16", "F16"), "F32"),  # neither holds the other
        (("F32", "BF16"), "F32"),
        (("BF16", "F32", "BF16"), "F32"),
        (("F64", "BF16"), "F64"),
    ],
)
def test_mixed_dtypes_are_written_as_the_wider(tmp_path: Path, dtypes: tuple[str, ...], written: str) -> None:
    spec = planned(tmp_path, dtypes).spec
    assert {name: stored.dtype for name, stored in spec.items()} == {"ids": "I64", "w": written}


@pytest.mark.parametrize(("dtype", "written"), [("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")])
def test_merge_dtype_decides_over_the_checkpoints_but_not_over_integers(
    tmp_path: Path, dtype: str, written: str
) -> None:
    spec = planned(tmp_path, ("BF16", "F32"), dtype).spec
    assert {name: stored.dtype for name, stored in spec.items()} == {"ids": "I64", "w": written}


def test_bytes_are_those_of_the_tensors(tmp_path: Path) -> None:
    plan = planned(tmp_path, ("BF16", "F32"))
    assert plan.bytes_written == 6 * 4 + 3 * 8
    assert plan.bytes_read == 6 * 2 + 6 * 4 + 2 * 3 * 8


def test_a_model_of_integers_alone_is_a_plan(tmp_path: Path) -> None:
    models = write_all(tmp_path, [{"ids": torch.arange(3)}] * 3)
    for params in (params_for("average"), params_for("average", weights="nan")):
        assert plan_for(params, models).bytes_held == 0


def test_memory_held_does_not_grow_with_the_tensor_unless_it_is_decomposed(tmp_path: Path) -> None:
    held: dict[tuple[str, int], int] = {}
    for rows in (2**10, 2**12):
        models = write_all(tmp_path / str(rows), [{"w": torch.zeros(rows, 2**9).bfloat16()}] * 4)
        for method in ("average", "lore"):
            held[method, rows] = plan_for(params_for(method), models).bytes_held
    assert held["average", 2**10] == held["average", 2**12]
    assert held["lore", 2**12] == 4 * held["lore", 2**10]
    assert math.isfinite(held["lore", 2**12])


@pytest.mark.parametrize(
    ("dtypes", "method", "read"),
    [
        (("BF16", "BF16"), "average", np.float32),
        (("F32", "F32"), "average", np.float64),
        (("BF16", "F16"), "iso_c", np.float32),
        (("F32", "F32"), "iso_c", np.float32),
        (("F32", "F64"), "iso_c", np.float64),
    ],
)
def test_whole_matrices_are_read_in_the_precision_of_the_files_others_in_that_of_one_rounding(
    dtypes: tuple[str, ...], method: str, read: type, tmp_path: Path
) -> None:
    models = write_all(tmp_path, [{"w": torch.ones(2, 3, dtype=FLOATS[d])} for d in ("F32", *dtypes)])
    assert plan_for(params_for(method), models).dtype("w") is read


def test_variants_share_the_files_and_only_their_writing_adds_up(tmp_path: Path) -> None:
    models = write_models(tmp_path)
    params = [MergeParams(method="ema", ema=EmaParams(decay=decay)) for decay in (0.2, 0.4, 0.6)]
    one, three = (
        plan_directories({tmp_path / f"{i}": own for i, own in enumerate(some)}, models[1:])
        for some in (params[:1], params)
    )
    assert three.bytes_written == 3 * one.bytes_written
    assert (three.bytes_read, three.bytes_held) == (one.bytes_read, one.bytes_held)
    assert (three.groups, three.spec) == (one.groups, one.spec)


def test_every_variant_is_checked(tmp_path: Path) -> None:
    params = [MergeParams(method="lore"), MergeParams(method="lore", lore=LoreParams(anchor=7))]
    with pytest.raises(BadInput, match="merge.lore.anchor: step 7 is not merged"):
        plan_directories({tmp_path / f"{i}": own for i, own in enumerate(params)}, write_models(tmp_path)[1:])
