"""LoRE on one matrix of every spectrum: active shares, strengths, tall, and really trained ones; CPU seconds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tasks.merging.lore.algebra import energy
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Near, Solution
from tasks.merging.lore.solve import solve
from tests.benchmarks.measure import digits, judged, say, table
from tests.benchmarks.spiked import deviations
from tests.benchmarks.stopwatch import two_threads

FINE = 256
"""As merge.lore.tolerance auto: near enough is this fraction of how far the checkpoints lie apart."""
SHARES = (0.01, 0.05, 0.15, 0.3, 0.6)
STRENGTHS = (3, 10, 30, 100, 300, 1000, 10_000)
CELL_GOAL, TALL_GOAL = 4.0, 10.0
"""Times the first cell; CPU seconds."""
TALL = ((49_152, 576), (32_000, 1024))
RANK = 16


def spectra(side: int) -> str:
    """Measure one matrix of three checkpoints: by the share that is active at μ, and by σ_1/μ."""
    rows: list[list[str]] = []
    first = 0.0
    for name, B, scale in _cells(side):
        seconds, found = _solved(name, B, scale)
        first = first or seconds
        active = max(delta.rank for delta in found.deltas) / side
        height = max(spectrum[0] for spectrum in found.spectra) / found.penalty.mu
        row = [name, f"{active:.1%}", f"{height:.3g}", found.solver, f"{found.passes}", *digits(2, seconds)]
        rows.append([*row, *judged(seconds / first, "≤", CELL_GOAL, 1)])
    return table(
        ["matrix", "active", "σ_1/μ", "solver", "passes", "CPU s", "to the first", "goal", "met"], rows
    )


def tall() -> str:
    """Measure embeddings of five checkpoints."""
    rows = []
    for m, n in TALL:
        seconds, found = _solved(f"{m} × {n}", deviations(5, m, n), Scale(1.05, "auto", "nuclear", (m, n)))
        rows.append([f"{m} × {n}", found.solver, f"{found.passes}", *judged(seconds, "≤", TALL_GOAL, 1)])
    return table(["matrix", "solver", "passes", "CPU s", "goal", "met"], rows)


def trained(run: Path, tensors: Callable[[str], bool]) -> str:
    """Measure the matrices of a run's checkpoints, a directory with checkpoint-N/model.safetensors each."""
    files = sorted(run.glob("checkpoint-*/model.safetensors"), key=lambda path: int(path.parent.name[11:]))
    with safe_open(files[-1], "pt") as newest:
        names = [
            name
            for name in newest.offset_keys()
            if tensors(name) and len(newest.get_slice(name).get_shape()) == 2
        ]
    rows = []
    for name in names:
        B = torch.stack([_read(file, name) for file in files])
        B -= B.mean(0)
        seconds, found = _solved(name, B, Scale(1.05, "auto", "nuclear", (B.shape[1], B.shape[2])))
        active = " ".join(str(delta.rank) for delta in found.deltas)
        rows.append([name, f"{B.shape[1]} × {B.shape[2]}", active, f"{found.passes}", *digits(2, seconds)])
    return table(["matrix", "shape", "active", "passes", "CPU s"], rows)


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        found: Tensor = opened.get_tensor(name)
    return found.float()


def _cells(side: int) -> Iterator[tuple[str, Tensor, Scale]]:
    for share in SHARES:
        B = falling(3, side)
        value = sorted(float(sigma[round(share * side)]) for sigma in map(torch.linalg.svdvals, B))[-1]
        yield f"falling, {share:.0%}", B, Scale(value, "absolute", "nuclear", (side, side))
    for strength in STRENGTHS:
        scale = Scale(1.05, "noise_edge", "nuclear", (side, side))  # auto may cut the spikes of a small side
        yield f"spikes of {strength} edges", strong(3, side, strength), scale


def falling(N: int, side: int) -> Tensor:
    """Return deviations whose singular values fall like 1/√k, without a floor."""
    random = torch.Generator().manual_seed(1)
    parts = []
    for _ in range(N):
        U, V = (torch.linalg.qr(torch.randn(side, side, generator=random)).Q for _ in range(2))
        parts.append((U * torch.arange(1, side + 1) ** -0.5) @ V.T)
    B = torch.stack(parts)
    return B - B.mean(0)


def strong(N: int, side: int, strength: float) -> Tensor:
    """Return deviations of unit noise and spikes, the largest so many noise edges high."""
    random = torch.Generator().manual_seed(2)
    theta = torch.randn(N, side, side, generator=random)
    for own in theta:
        U, V = (torch.linalg.qr(torch.randn(side, RANK, generator=random)).Q for _ in range(2))
        own += (U * (1.5 * strength * 2 * side**0.5 * torch.linspace(1, 0.4, RANK))) @ V.T
    return theta - theta.mean(0)


def _solved(name: str, B: Tensor, scale: Scale) -> tuple[float, Solution]:
    say(f"spectra: {name}")
    with two_threads():
        torch.set_num_threads(1)
        start = time.process_time()
        found = solve(B, scale, Near((energy(B) / len(B)) ** 0.5 / FINE))
        return time.process_time() - start, found
