"""Writing merged adapters as a complete PEFT adapter directory."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.base.measures import TensorMeasures
from tasks.base.threads import one_thread_each
from tasks.checkpoints.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SINGLE, side_files
from tasks.checkpoints.numbers import Numbers, all_finite, compute_dtype, encode
from tasks.engine.adapters import AdapterPlan, MergedFactors, factor_names, merge_factors
from tasks.engine.cut import cut
from tasks.engine.devices import CPU
from tasks.engine.estimate import TimeEstimate
from tasks.engine.memory import keep_freed_pages
from tasks.engine.progress import Headway, OnProgress, untold
from tasks.engine.sample import foretell
from tasks.engine.shards import Shard, Stored, open_shards, write_numbers
from tasks.merging.block import Block
from tasks.merging.methods import METHODS, averaging
from tasks.merging.program import Finish, Settings, run_program
from tasks.merging.solving import Solving


def merge_adapters(
    plan: AdapterPlan, directories: Sequence[Path], on_progress: OnProgress = untold
) -> list[dict[str, TensorMeasures]]:
    """Write each variant as an adapter directory: factors, configuration, the newest's other files.

    Adapters are small: every variant reads them again. Return what was measured of each tensor, variant by
    variant. Raises BadInput for NaN and overflow.
    """
    keep_freed_pages()
    expected = _each(foretell(plan, [CPU]), len(plan.variants))
    # cores are small: what one variant has solved is kept for the others
    solving = Solving(expected.solved if expected else None, keeps=len(plan.variants) > 1)
    every = [name for _ in plan.variants for name in plan.shapes]
    last, rest, begun = "", list(every), time.monotonic()

    def tell(names: Sequence[str]) -> None:
        nonlocal last
        for last in names:
            rest.remove(last)
        total, done = len(every), len(every) - len(rest)
        left = expected.left(every, rest, time.monotonic() - begun) if expected and rest else ""
        written = done * plan.bytes_written // total
        on_progress(Headway(last, written, plan.bytes_written, done, total, solving.passes, left))

    with one_thread_each(plan.method.whole):
        settings = [replace(own, solving=solving) for own in plan.variants]
        variants = zip(settings, directories, strict=True)
        return [_write(plan, own, directory, tell) for own, directory in variants]


def _each(expected: TimeEstimate | None, variants: int) -> TimeEstimate | None:
    """Return what each variant takes, of an estimate for all."""
    return expected and expected._replace(
        seconds={name: own / variants for name, own in expected.seconds.items()}
    )


def _write(
    plan: AdapterPlan, settings: Settings, directory: Path, tell: Callable[[Sequence[str]], None]
) -> dict[str, TensorMeasures]:
    merged = merge_factors(plan, settings, tell)
    _write_tensors(plan, settings, merged, directory)
    newest = plan.inputs[-1]
    for path in side_files(newest.directory):
        shutil.copyfile(path, directory / path.name)
    ranks = {name.removesuffix(".weight"): found.A.shape[0] for name, found in merged.items()}
    config = read_json(newest.directory / ADAPTER_CONFIG) | _config(ranks)
    (directory / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return {name: found.measures for name, found in merged.items()}


def _config(ranks: Mapping[str, int]) -> dict[str, object]:
    """Return the keys of adapter_config.json for these ranks: α = r, so that the scaling is 1.

    PEFT takes the first pattern that a module's name ends with, so the longest come first.
    """
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {module: rank for module, rank in ranks.items() if rank != usual}
    pattern = dict(sorted(others.items(), key=lambda item: (-len(item[0]), item[0])))
    return {
        "r": usual, "lora_alpha": usual, "rank_pattern": pattern, "alpha_pattern": pattern,
        "use_rslora": False, "init_lora_weights": True, "inference_mode": True,
        "target_modules": sorted(ranks), "exclude_modules": None,
        "layers_to_transform": None, "layers_pattern": None,
    }  # fmt: skip


def _write_tensors(
    plan: AdapterPlan, settings: Settings, merged: Mapping[str, MergedFactors], directory: Path
) -> None:
    halves = dict[str, Numbers]()
    for name, found in merged.items():
        A, B = factor_names(name, plan.inputs)
        halves |= {A: found.A, B: found.B}
    dtypes = {key: stored.dtype for key, stored in plan.spec.items()}
    spec = {
        key: Stored(dtypes[key], halves[key].shape) if key in halves else stored
        for key, stored in plan.spec.items()
    }
    everything = sum(stored.size for stored in spec.values())
    with open_shards(directory, spec, everything) as [shard]:
        for key, numbers in halves.items():
            write_numbers(shard, key, 0, np.ascontiguousarray(numbers))
        for name, key in plan.inputs[-1].replaced.items():
            _average(plan, replace(settings, shapes={name: spec[key].shape}), key, spec[key], shard)
    (directory / SINGLE).rename(directory / ADAPTER_WEIGHTS)


def _average(plan: AdapterPlan, settings: Settings, key: str, stored: Stored, shard: Shard) -> None:
    """Average a tensor that adapters hold whole: by the method's weights where it has some, else plainly."""
    # weights from norms are those of factors, which this tensor lacks
    [name], params = settings.shapes, settings.params
    own = METHODS[params.method].averages_weights and params.weights not in ("nan", "metagpt")
    if not own:
        settings = averaging(settings)
    finish: Finish = run_program(METHODS[settings.params.method].program(settings), [], _no_block)
    compute = compute_dtype(stored.dtype)
    for piece in cut(name, stored.shape, whole=False):
        rows, columns = piece.rows, piece.columns
        thetas = [
            adapter.read(adapter.replaced[name], piece.start, rows * columns, compute).reshape(rows, columns)
            for adapter in plan.inputs
        ]
        average, _ = finish(Block(name, piece.matrix, piece.start, thetas, None))
        numbers = encode(average.reshape(-1), stored.dtype)
        if not all_finite(numbers, stored.dtype):
            raise BadInput(
                f"tensor {name}", f"the merge overflows {stored.dtype}", "choose a wider merge.dtype"
            )
        write_numbers(shard, key, piece.start * numbers.itemsize, numbers)


def _no_block(tensor: str) -> Block:
    raise AssertionError(f"{tensor}: averages measure nothing")
