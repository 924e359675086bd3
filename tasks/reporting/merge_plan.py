"""What a merge would do, for `loreline merge --dry-run`."""

import math
import shutil
from collections import Counter
from pathlib import Path

from tasks.engine.blocks import HELD_BYTES
from tasks.engine.devices import choose_devices, compute_threads
from tasks.engine.plan import Plan
from tasks.engine.sample import sampled
from tasks.engine.shards import parse_size, plan_shards


def merge_plan(plan: Plan, out: Path) -> str:
    """Say what is read, computed and written, and what it takes."""
    params = plan.params
    devices = choose_devices(params.device, plan.method.whole)
    parameters = sum(math.prod(stored.shape) for stored in plan.spec.values())
    dtypes = Counter(stored.dtype for stored in plan.spec.values())
    files = len(plan.variants) * len(plan_shards(plan.spec, parse_size(params.max_shard_size)))
    parent = next(path for path in out.absolute().parents if path.is_dir())
    rows = {
        "method": f"{params.method}: {plan.method.summary} ({plan.method.reference})",
        "checkpoints": ", ".join(source.label for source in plan.inputs),
        "base": plan.base.label if plan.base else "none",
        "tensors": f"{len(plan.spec)}, {parameters / 1e6:,.1f} M parameters",
        "dtypes": ", ".join(f"{dtype} × {count}" for dtype, count in dtypes.most_common()),
        "read": f"{plan.bytes_read / 1e9:.2f} GB a pass",
        "write": f"{plan.bytes_written / 1e9:.2f} GB in {files} file{'s' * (files > 1)} to {out}",
        "free": f"{shutil.disk_usage(parent).free / 1e9:.1f} GB",
        "compute": f"{compute_threads(plan.bytes_held)} threads"
        if devices == ["cpu"]
        else ", ".join(devices),
        "memory": f"about {plan.bytes_held / 1e6:,.0f} MB for each thread{_held(plan)}",
    }
    if plan.texts:
        rows["text"] = f"{len(plan.texts)} texts, on which {_on_text(plan)}"
    if (expected := sampled(plan, devices)) is not None:
        rows["time"] = (
            f"{expected}, from {expected.sampled} of {len(expected.seconds)} matrices, solved as a sample"
        )
    if len(plan.variants) > 1:
        rows["variants"] = f"{len(plan.variants)}, from one read"
    of_methods = (note for own in plan.variants for note in plan.method.notes(own))
    notes = dict.fromkeys([*plan.notes, *of_methods])
    return "\n".join(
        [*(f"{key:12}{value}" for key, value in rows.items()), *(f"note: {note}" for note in notes)]
    )


def _held(plan: Plan) -> str:
    """Say what is held besides of methods that measure before they merge."""
    if not any(name in plan.spec for name in plan.shapes):  # the factors of adapters
        return ""
    try:
        next(plan.method.run(plan.variants))
    except StopIteration:
        return ""
    return f", and up to {min(HELD_BYTES, plan.bytes_read) / 1e6:,.0f} MB of blocks that are measured first"


def _on_text(plan: Plan) -> str:
    """Say what is done on the texts before the merge."""
    if plan.method.measures == "coefficients":
        return f"the coefficients are learned first, in {plan.params.adamerging.steps} steps"
    measured = f"{plan.bytes_measured / 1e9:.2f} GB on the disk until the merge is written"
    return f"every checkpoint is measured first: {measured}"
