"""Measure merging the shapes of a 7B model on a GPU; print the result, or write it to a page (`make gpu`).

gpu.py [--device cuda:0] [--threads 4] [--layers 32] [--side 4096] [--files /dev/shm] [--page docs/benchmarks.md]

Three checkpoints are made on the device, in bf16: a base, and noise and rank 16 from it. No disk is measured:
seconds are from the first tensor, stored on the device, to the last, merged there and rounded, by as many threads
as a merge has. With --files the checkpoints are written there too, and merged as a user does it.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from tasks.base.threads import compute_alone
from tasks.engine.devices import THREADS_PER_GPU
from tasks.merging.block import Block
from tasks.merging.layers import Layers
from tasks.merging.methods import METHODS
from tasks.merging.on_device import finish_stream, load_linear_algebra, take_a_stream
from tasks.merging.program import Settings, run_program
from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import resolve
from tests.benchmarks.lore_merges import LORE, loreline
from tests.benchmarks.measure import Usage, digits, judged, say, table
from tests.benchmarks.models import CHANGE, CHECKPOINTS, DEVIATION, RANK, Llama
from tests.benchmarks.programs import run

LORE_GOAL = 10.0
"""Seconds of computing on one H200."""
WALL_GOAL = 20.0
"""Seconds of a whole merge, from files to a file."""
FROM_FILES = ["LoRE from files, s", "goal", "met", "CPU s", "peak MB of memory"]
MEASURED = {"average": MergeParams(), "ties": MergeParams(method="ties"), "lore": MergeParams(method="lore")}


@dataclass(frozen=True)
class Cost:
    """What a method took for a whole model."""

    seconds: float
    moved: int
    """Bytes of the checkpoints, as they would be read, and of the merge."""
    peak: int
    """Bytes of the device's memory; 0 where torch does not count them."""


def measure(method: str, params: MergeParams, llama: Llama, device: str, threads: int) -> Cost:
    """Merge every tensor of a model on the device."""
    layers = Layers.of(llama.shapes)
    load_linear_algebra(device)
    blocks = list(model_of(llama, device))
    begun = waited(device)  # torch knows no statistics of a device that nothing has used yet
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)

    def merged(block: Block) -> int:
        name, shape = block.tensor, llama.shapes[block.tensor]
        settings = Settings(
            params,
            lambda tensor: resolve(params, tensor, layers.position(tensor)),
            range(1, len(CHECKPOINTS) + 1),
            {name: shape},
            {name: "BF16"},
        )
        own = replace(block, thetas=block.thetas.float(), base=block.base.float())
        finish = run_program(METHODS[method].run([settings]), [name], lambda _: own)
        rounded = [found.to(torch.bfloat16) for found, _ in finish(own)]
        finish_stream(device)
        return 2 * math.prod(shape) * (len(own.thetas) + 1 + len(rounded))

    def begin() -> None:
        compute_alone()
        take_a_stream(device)

    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        moved = sum(pool.map(merged, blocks))
    seconds = waited(device) - begun
    peak = torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0
    return Cost(seconds, moved, peak)


def from_files(llama: Llama, device: str, directory: Path) -> Usage:
    """Write the checkpoints, and merge them by LoRE with the command line."""
    with TemporaryDirectory(dir=directory) as scratch:
        checkpoints = Path(scratch)
        blocks = list(model_of(llama, device))
        for i, name in enumerate(CHECKPOINTS):
            (checkpoints / name).mkdir()
            own = {
                block.tensor: block.thetas[i].reshape(llama.shapes[block.tensor]).cpu() for block in blocks
            }
            save_file(own, checkpoints / name / "model.safetensors", metadata={"format": "pt"})
            (checkpoints / name / "config.json").write_text(json.dumps(llama.config))
        del blocks
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        return run(checkpoints, loreline(checkpoints, *LORE, f"merge.device={device.partition(':')[0]}"))


def model_of(llama: Llama, device: str) -> Iterator[Block]:
    """Make the base and the checkpoints on the device, tensor by tensor."""
    for i, (name, shape) in enumerate(llama.shapes.items()):
        yield made(name, shape, i, llama.strength, device)


def made(name: str, shape: tuple[int, ...], seed: int, strength: float, device: str) -> Block:
    """Make a tensor of the base and of every checkpoint on the device."""
    random = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=random, device=device)

    rows, columns = shape if len(shape) == 2 else (shape[0], 1)
    base = DEVIATION * normal(rows, columns) if len(shape) == 2 else torch.ones(rows, 1, device=device)
    thetas = torch.empty(len(CHECKPOINTS), rows, columns, device=device)
    for theta in thetas:
        theta.copy_(base + CHANGE * normal(rows, columns))
        if len(shape) == 2:
            theta += (strength * CHANGE / RANK**0.5) * (normal(rows, RANK) @ normal(RANK, columns))
        theta.copy_(theta.bfloat16())
    return Block(name, 0, 0, thetas.bfloat16(), base.bfloat16())


def waited(device: str) -> float:
    """Return the time when the device has done all that it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rows(llama: Llama, device: str, threads: int) -> Iterator[list[str]]:
    """Measure the methods one after the other, the first of each once beforehand to warm up."""
    for method, params in MEASURED.items():
        say(method)
        measure(method, params, Llama(1, 256, 512, 512), device, threads)
        cost = measure(method, params, llama, device, threads)
        goal = (
            judged(cost.seconds, "≤", LORE_GOAL) if method == "lore" else [*digits(2, cost.seconds), "", ""]
        )
        yield [method, *goal, *digits(0, cost.moved / cost.seconds / 1e9, cost.peak / 1e6)]


def with_section(page: str, section: str) -> str:
    """Return a page with the section of this heading replaced, or added at the end."""
    heading = section.splitlines()[0]
    before, found, after = f"\n{page}".partition(f"\n{heading}\n")
    _, rest, others = after.partition("\n## ")
    return f"{before.lstrip()}\n{section}" + (f"\n## {others}" if found and rest else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print or write the section."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", default="cuda:0")
    options.add_argument("--threads", type=int, default=THREADS_PER_GPU)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument(
        "--side", type=int, default=4096, help="hidden size; less, to try the benchmark itself"
    )
    options.add_argument("--files", type=Path, help="where to write checkpoints to merge from files, too")
    options.add_argument("--page", type=Path, help="where to put the section, instead of the one there")
    given = options.parse_args(arguments)
    llama = Llama(given.layers, given.side, given.side * 11 // 4 // 64 * 64, 8 * given.side)
    name = torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device
    columns = ["method", "s", "goal", "met", "GB/s of bf16", "peak MB"]
    section = (
        f"## On a GPU\n\n{time.strftime('%Y-%m-%d')}, {name}, torch {torch.__version__}, "
        f"{llama.parameters / 1e9:.2f} billion parameters, three checkpoints.\n\n"
        f"{table(columns, list(rows(llama, given.device, given.threads)))}\n"
    )
    if given.files:
        usage = from_files(llama, given.device, given.files)
        section += f"\n{table(FROM_FILES, [[*judged(usage.wall, '≤', WALL_GOAL), *digits(0, usage.cpu, usage.rss)]])}\n"
    if given.page is None:
        print(section, end="")
    else:
        given.page.write_text(with_section(given.page.read_text(encoding="utf-8"), section), encoding="utf-8")


if __name__ == "__main__":
    main()
