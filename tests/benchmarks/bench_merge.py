"""Measure whole merges and print Markdown tables (`make bench`).

bench_merge.py [PART...] [--runs 5] [--methods average ties] [--layers 12] [--side 1024]

Without a part, all of them: two hours. The checkpoints, 28 GB, are written below $LORELINE_BENCH and found
there again; without it, in a temporary place.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.fidelity import fidelity
from tests.benchmarks.lore_adapters import adapters, adapters_on_base
from tests.benchmarks.lore_merges import STRENGTH, beside_ties, memory, sweep, symmetric
from tests.benchmarks.lore_solver import anchored, converged, thresholding
from tests.benchmarks.lore_spectra import spectra, tall, trained
from tests.benchmarks.models import LARGE, Llama, models
from tests.benchmarks.naive import against_naive
from tests.benchmarks.programs import METHODS
from tests.benchmarks.speed import against_copying, against_mergekit, on_kinds, scaling
from tests.benchmarks.startup import startup

FEW = 2
"""Runs of what takes long."""
Part = Callable[[Path, argparse.Namespace], str]
PARTS: dict[str, tuple[str, Part]] = {
    "table": (
        "Beside mergekit",
        lambda root, given: against_mergekit(root, models(root, shape(given)), given.methods, given.runs),
    ),
    "cat": (
        "Beside copying",
        lambda root, given: against_copying(root, models(root, shape(given)), given.runs),
    ),
    "kinds": (
        "Beside mergekit, on checkpoints of every kind",
        lambda root, given: on_kinds(root, given.run, given.methods, few(given)),
    ),
    "large": (
        "Beside mergekit, 1.36 billion parameters",
        lambda root, given: against_mergekit(root, models(root, LARGE), given.methods, few(given)),
    ),
    "large-cat": (
        "Beside copying, 1.36 billion parameters",
        lambda root, given: against_copying(root, models(root, LARGE), given.runs),
    ),
    "fidelity": ("Fidelity", lambda root, given: fidelity(root, shape(given), given.methods)),
    "scaling": ("Scaling", lambda root, given: scaling(root, ("average", "ties"), given.runs)),
    "startup": ("Start-up", lambda root, given: startup(root, given.runs)),
    "naive": ("Beside the naive way", lambda root, given: against_naive(root, given.runs)),
    "svt": (
        "LoRE: one warm thresholding beside gesdd",
        lambda root, given: thresholding(given.side, given.runs),
    ),
    "lore": (
        "LoRE: converged, beside ten naive passes",
        lambda root, given: converged(given.side, few(given)),
    ),
    "spectra": ("LoRE: one matrix of every spectrum", lambda root, given: spectra(given.side)),
    "tall": ("LoRE: embeddings", lambda root, given: tall()),
    "anchored": (
        "LoRE: two checkpoints, anchored",
        lambda root, given: anchored(given.side, few(given)),
    ),
    "symmetric": (
        "LoRE: two checkpoints, beside their average",
        lambda root, given: symmetric(root, shape(given), given.runs),
    ),
    "adapters": (
        "LoRE: adapters, beside reading and writing them",
        lambda root, given: adapters(root, 4 * given.side, few(given)),
    ),
    "onto": (
        "LoRE: adapters onto a base",
        lambda root, given: adapters_on_base(root, 4 * given.side, few(given)),
    ),
    "model": (
        "LoRE: whole merge beside mergekit's TIES",
        lambda root, given: beside_ties(root, shape(given), few(given)),
    ),
    "strong": (
        "LoRE: whole merge of strong spikes beside mergekit's TIES",
        lambda root, given: beside_ties(root, replace(shape(given), strength=STRENGTH), few(given)),
    ),
    "model-large": (
        "LoRE: whole merge beside mergekit's TIES, 1.36 billion parameters",
        lambda root, given: beside_ties(root, LARGE, 1),
    ),
    "strong-large": (
        "LoRE: whole merge of strong spikes beside mergekit's TIES, 1.36 billion parameters",
        lambda root, given: beside_ties(root, replace(LARGE, strength=STRENGTH), 1),
    ),
    "sweep": ("LoRE: ten λ at once", lambda root, given: sweep(root, shape(given), 1)),
    "memory": ("LoRE: memory of one matrix", lambda root, given: memory(root, few(given))),
    "trained": (
        "LoRE: matrices of a run that was really trained",
        lambda root, given: trained(given.run, lambda name: ".0." in name or "embed" in name),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for."""
    given = parser().parse_args(arguments)
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, median of {given.runs}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(os.environ.get("LORELINE_BENCH") or scratch).absolute()
        root.mkdir(parents=True, exist_ok=True)
        for part in given.parts or [part for part in PARTS if part != "trained" or given.run]:
            title, measured = PARTS[part]
            print(f"\n## {title}\n\n{measured(root, given)}", flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all")
    options.add_argument("--runs", type=int, default=5, help="of every program")
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    options.add_argument(
        "--layers", type=int, default=Llama.layers, help="fewer, to try the benchmark itself"
    )
    options.add_argument(
        "--run",
        type=Path,
        help="directory of checkpoint-N/model.safetensors beside a base, for `trained` and `kinds`",
    )
    options.add_argument(
        "--side",
        type=int,
        default=1024,
        help="of the smallest matrix solved; less, to try the benchmark itself",
    )
    return options


def few(given: argparse.Namespace) -> int:
    """Return how often to run what takes long."""
    return min(given.runs, FEW)


def shape(given: argparse.Namespace) -> Llama:
    """Return the shape of the checkpoints."""
    return Llama(layers=given.layers)


def machine() -> str:
    """Say what this was measured on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        named = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = named[0] if named else processor
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "mergekit"))
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()
