"""Merge the naive way, as one would write it in an hour: everything in memory, full decompositions, ten passes.

Usage: naive_merge.py METHOD OUT CHECKPOINT... with METHOD average or lore (Algorithm 1 of the paper).
"""

import sys

import torch
from safetensors.torch import load_file, save_file

MU = 1e-3
PASSES = 10


def main(method: str, out: str, *inputs: str) -> None:
    models = [load_file(f"{directory}/model.safetensors") for directory in inputs]
    merged = {}
    for name, first in models[0].items():
        thetas = [model[name].float() for model in models]
        theta = sum(thetas) / len(thetas)
        if method == "lore" and theta.ndim == 2:
            theta = lore(thetas)
        merged[name] = theta.to(first.dtype)
    save_file(merged, out)


def lore(thetas: list[torch.Tensor]) -> torch.Tensor:
    deltas = [torch.zeros_like(theta) for theta in thetas]
    for _ in range(PASSES):
        anchor = sum(theta - delta for theta, delta in zip(thetas, deltas, strict=True)) / len(thetas)
        deltas = [shrink(theta - anchor) for theta in thetas]
    return anchor + sum(deltas) * 1.25 / len(thetas)


def shrink(A: torch.Tensor) -> torch.Tensor:
    U, s, Vt = torch.linalg.svd(A, full_matrices=False)
    return (U * (s - MU).clamp(min=0)) @ Vt


if __name__ == "__main__":
    main(*sys.argv[1:])
