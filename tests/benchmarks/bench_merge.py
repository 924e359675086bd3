"""Time whole merges against the naive way, in the same run, alternating; print a table with peak memory.

Run with `make bench`. The naive way is what one would write in an hour: load every checkpoint whole, then average
with torch, or iterate LoRE's Algorithm 1 with `torch.linalg.svd` ten times per matrix, then save.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

RUNS, N, LAYERS, HIDDEN, MIDDLE, VOCABULARY = 3, 3, 4, 256, 704, 2048

NAIVE = """
import sys, torch
from safetensors.torch import load_file, save_file
method, out, *inputs = sys.argv[1:]
models = [load_file(path + "/model.safetensors") for path in inputs]
def svt(A, mu):
    U, s, Vt = torch.linalg.svd(A, full_matrices=False)
    return (U * (s - mu).clamp(min=0)) @ Vt
merged = {}
for name in models[0]:
    thetas = [model[name].float() for model in models]
    theta = torch.stack(thetas).mean(0)
    if method == "lore" and theta.ndim == 2:
        deltas = [torch.zeros_like(theta)] * len(thetas)
        for _ in range(10):
            theta = torch.stack([t - d for t, d in zip(thetas, deltas)]).mean(0)
            deltas = [svt(t - theta, 0.05) for t in thetas]
        theta = theta + sum(deltas) * 1.25 / len(thetas)
    merged[name] = theta.to(models[0][name].dtype)
save_file(merged, out)
"""

LORELINE = "from flows.cli import main; main()"


def main() -> None:
    """Make the checkpoints, time both programs, print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        inputs = [str(path) for path in write_checkpoints(root)]
        size = sum((Path(path) / "model.safetensors").stat().st_size for path in inputs)
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
        )
        print(f"{N} checkpoints of {size / N / 1e6:.0f} MB in bf16, median of {RUNS}\n")
        print("| method | Loreline s | naive s | ratio | Loreline MB | naive MB |\n|---|---|---|---|---|---|")
        for method in ("average", "lore"):
            ours, naive = [], []
            for run in range(RUNS):
                out = root / f"{method}-{run}"
                options = ["--set", f"merge.method={method}", "--set", "merge.lore.tolerance=1e-4"]
                ours.append(measure([LORELINE, "merge", *inputs, "--out", str(out), *options]))
                naive.append(measure([NAIVE, method, str(root / "naive.safetensors"), *inputs]))
            print(row(method, ours, naive), flush=True)


def write_checkpoints(root: Path) -> list[Path]:
    """Write Llama-shaped checkpoints: a common base, noise at 0.2 % of its deviation, and rank-16 deltas."""
    shapes = {"embed": (VOCABULARY, HIDDEN), "head": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {f"{layer}.{name}": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {
            f"{layer}.gate": (MIDDLE, HIDDEN),
            f"{layer}.up": (MIDDLE, HIDDEN),
            f"{layer}.down": (HIDDEN, MIDDLE),
        }
    base = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(0)) for name, shape in shapes.items()
    }
    paths = []
    for step in range(1, N + 1):
        random = torch.Generator().manual_seed(step)
        tensors = {}
        for name, theta in base.items():
            m, n = theta.shape
            low_rank = torch.randn(m, 16, generator=random) @ torch.randn(16, n, generator=random) * 2e-3
            tensors[name] = (theta + 2e-3 * torch.randn(m, n, generator=random) + low_rank).bfloat16()
        path = root / f"checkpoint-{step}"
        path.mkdir()
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
        paths.append(path)
    return paths


def measure(arguments: list[str]) -> tuple[float, float]:
    """Run a program to its end; return seconds and its peak resident memory in MB."""
    code, *rest = arguments
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *rest], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"failed: {child.stderr.read().decode() if child.stderr else status}")
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return seconds, resource.struct_rusage(usage).ru_maxrss / scale


def row(method: str, ours: list[tuple[float, float]], naive: list[tuple[float, float]]) -> str:
    """Format the medians, the ratio taken pair by pair."""
    ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, naive, strict=True))
    (s1, m1), (s2, m2) = (
        [statistics.median(column) for column in zip(*runs, strict=True)] for runs in (ours, naive)
    )
    return f"| {method} | {s1:.2f} | {s2:.2f} | {ratio:.2f} | {m1:.0f} | {m2:.0f} |"


if __name__ == "__main__":
    main()
