"""Writing the variants of a merge, each as a complete Hugging Face model directory."""

import json
import shutil
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from tasks.base.digests import remember
from tasks.base.json_files import read_json
from tasks.base.measures import TensorMeasures
from tasks.checkpoints.layout import side_files
from tasks.engine.devices import choose_devices
from tasks.engine.execute import execute
from tasks.engine.journal import JOURNAL
from tasks.engine.learning import with_learned
from tasks.engine.measuring import with_measured
from tasks.engine.plan import DTYPES, Plan
from tasks.engine.progress import OnProgress, untold
from tasks.engine.sample import foretell
from tasks.engine.shards import parse_size, plan_shards

MEASURED = ".measured"
"""Where what is measured on text lies until the merge is written."""
DTYPE_NAMES = {stored: name for name, stored in DTYPES.items()}


def write_models(
    plan: Plan, directories: Sequence[Path], on_progress: OnProgress = untold
) -> list[dict[str, TensorMeasures]]:
    """Write each variant as a model directory: weights, and the newest input's configuration and tokenizer.

    Return what was measured of each tensor, variant by variant.
    """
    params = plan.params
    devices, shard_bytes = choose_devices(params.device, plan.method.whole), parse_size(params.max_shard_size)
    for directory in directories:
        _prepare(plan, directory, plan_shards(plan.spec, shard_bytes))
    scratch = directories[0] / MEASURED
    measured = with_learned(with_measured(plan, scratch, on_progress), scratch, on_progress)
    written = execute(measured, directories, shard_bytes, devices, on_progress, foretell(plan, devices))
    del measured  # closes its files, which NFS would keep under other names
    if scratch.exists():
        shutil.rmtree(scratch)
    for found in written:
        remember((path.stat(), digest) for path, digest in found.digests.items())
    return [found.measures for found in written]


def _prepare(plan: Plan, directory: Path, weight_files: Iterable[str]) -> None:
    """Write everything but the weights."""
    _clear(directory, keep={JOURNAL, MEASURED, *weight_files})
    for path in side_files(plan.inputs[-1].directory):
        shutil.copyfile(path, directory / path.name)  # not linked: a later edit must not reach the checkpoint
    _set_dtype(directory / "config.json", plan)


def _clear(directory: Path, keep: Set[str]) -> None:
    """Remove what a killed process left beside weights and journal, such as its own report."""
    for path in directory.iterdir():
        if path.name not in keep:
            path.unlink()


def _set_dtype(config_file: Path, plan: Plan) -> None:
    """Set the dtype in config.json to the one written, where the newest input has another."""
    written, own = (
        {info.dtype for info in tensors.values()} & DTYPE_NAMES.keys()
        for tensors in (plan.spec, plan.inputs[-1].tensors)
    )
    if written == own or len(written) > 1:  # with several dtypes there is no one to name
        return
    config = read_json(config_file)
    named = {
        key: DTYPE_NAMES[dtype] for key in ("dtype", "torch_dtype") for dtype in written if key in config
    }
    config_file.write_text(json.dumps(config | named, indent=2) + "\n", encoding="utf-8")
