"""What every method measured on a tensor is known by its kind, and comes back from where it is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.base.measures import Averaged, LoreMeasures, TensorMeasures
from tasks.base.records.merge import MergeReport
from tasks.engine.journal import Journal
from tasks.engine.shards import Stored, open_shards
from tasks.merge_checkpoints import merge_directories
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import ON_WEIGHTS_ALONE, write_all
from tests.support.in_memory import merge
from tests.support.tiny import random_tensors
from tests.support.tiny_adapters import write_adapter, write_llama

KINDS = {
    "lore": "lore", "average": None, "ema": "weights", "wma": "weights", "lawa": "weights",
    "power_ema": "weights", "planned": "weights", "wsm": "weights", "trend": "weights", "drift": "weights", "median": None, "trimmed_mean": None,
    "geometric_median": "weights", "task_arithmetic": None, "ties": None, "dare": None, "dare_ties": None, "breadcrumbs": None,
    "metagpt": "weights", "slerp": "slerp", "model_stock": "model_stock", "widen": "weights", "tsv_m": "tsv_m",
    "iso_c": "iso_c",
}  # fmt: skip
"""Method -> the kind of what it finds on a matrix."""


def believed(measures: dict[str, TensorMeasures], directory: Path) -> dict[str, TensorMeasures]:
    """Note tensors down in a journal, and return what a later process believes."""
    spec = {name: Stored("F32", (0,)) for name in measures}
    directory.mkdir()
    with open_shards(directory, spec, 2**20) as shards:
        journal = Journal(directory, shards, spec)
        for name, own in measures.items():
            journal.finish(name, own)
        return Journal(directory, shards, spec).finished


@pytest.mark.parametrize("method", ON_WEIGHTS_ALONE)
def test_measures_survive_merge_json_and_the_journal(method: str, tmp_path: Path) -> None:
    models = [{**random_tensors(step), "ids": torch.arange(3)} for step in range(4)]
    base, *checkpoints = write_all(tmp_path / "training", models)
    row = METHODS[method]
    params = MergeParams(method=method, base=str(base) if row.base == "required" else None)
    found = merge_directories(params, checkpoints[: row.at_most], tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "merge.json").read_text())["tensors"]
    assert MergeReport.read(tmp_path / "out" / "merge.json").tensors == found.tensors
    assert believed(found.tensors, tmp_path / "journal") == found.tensors
    assert kept["tall"].get("method", {}).get("kind") == KINDS[method]
    assert kept["ids"] == {}
    assert {name for name, own in kept.items() if "deviation" in own} == kept.keys() - {"ids"}
    assert "null" not in json.dumps(kept)


@pytest.mark.parametrize(("count", "method"), [(3, "lore"), (2, "lore"), (3, "average"), (3, "ema")])
def test_measures_of_adapters_survive_too(count: int, method: str, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", hidden=16)
    adapters = [write_adapter(tmp_path / f"checkpoint-{i}", base, i, r=2) for i in range(1, count + 1)]
    found = merge_directories(MergeParams(method=method), adapters, tmp_path / "out")
    assert MergeReport.read(tmp_path / "out" / "merge.json") == found
    assert believed(found.tensors, tmp_path / "journal") == found.tensors
    for own in found.tensors.values():
        assert own.deviation is None
        assert own.factors is not None
        assert (own.method.kind if own.method else None) == ("averaged" if count == 2 else KINDS[method])


def test_a_stack_has_the_largest_of_what_its_decomposed_matrices_have() -> None:
    """A frozen expert is averaged, and says nothing of the others."""
    rng = np.random.default_rng(0)
    experts = [rng.standard_normal((4, 12, 8)) for _ in range(3)]
    for model in experts:
        model[1] = experts[0][1]
        model[3] *= 5
    stacked = merge(MergeParams(method="lore"), [{"experts": model} for model in experts])[1]["experts"]
    alone = merge(MergeParams(method="lore"), [{str(i): model[i] for i in range(4)} for model in experts])[1]
    assert alone.pop("1") == Averaged(identical=True)
    assert isinstance(stacked, LoreMeasures)
    assert (stacked.shape, stacked.mu) == ((12, 8), MergeParams().lore.mu)
    for key in ("threshold", "edge", "gap", "passes", "share", "explained", "from_mean"):
        assert getattr(stacked, key) == max(getattr(own, key) for own in alone.values()), key
    for key in ("active", "ranks", "effective_ranks", "spectra"):
        assert getattr(stacked, key) == tuple(
            max(own) for own in zip(*(getattr(own, key) for own in alone.values()), strict=True)
        ), key
