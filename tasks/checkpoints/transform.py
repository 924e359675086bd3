"""Making one model directory out of several, tensor by tensor."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.layout import side_files
from tasks.checkpoints.weights import Weights, check_agreement, read_tensor
from tasks.checkpoints.writer import write_weights
from tasks.errors import BadInput, LorelineError
from tasks.threads import threads_for

Combine = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, Mapping[str, Any]]]
"""The same tensor of every checkpoint (float64, oldest first) → the merged one, and what was measured."""

OnTensor = Callable[[str, int, int], None]
"""Called with a tensor's name once it is merged, the bytes merged so far, and all bytes."""


def transform(
    inputs: Sequence[Weights],
    directory: Path,
    combine: Combine,
    max_shard_bytes: int,
    on_tensor: OnTensor = lambda name, done, total: None,
) -> dict[str, Mapping[str, Any]]:
    """Write the merge of `inputs` (oldest first) as a complete model directory; return what was measured.

    Configuration and tokenizer are the newest input's. `on_tensor` hears of every merged tensor.
    Raises BadInput for inputs that do not belong together or hold NaN, and for overflow.
    """
    check_agreement(inputs)
    newest = inputs[-1]
    spec = {name: info for name, (_, info) in sorted(newest.tensors.items())}
    measured: dict[str, Mapping[str, Any]] = {}
    done, total = 0, sum(info.end - info.start for info in spec.values())

    def merged() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal done
        for name, info in spec.items():
            tensors = [read_tensor(weights, name) for weights in inputs]
            if info.dtype in FLOATING:
                tensor, measured[name] = _combined(name, tensors, combine)
            else:
                tensor = _identical(name, tensors, inputs)
            done += info.end - info.start
            on_tensor(name, done, total)
            yield name, tensor

    write_weights(directory, spec, merged(), max_shard_bytes)
    for path in side_files(newest.directory):
        shutil.copyfile(path, directory / path.name)  # no link: these files will have another life
    return measured


def _combined(
    name: str, tensors: Sequence[torch.Tensor], combine: Combine
) -> tuple[torch.Tensor, Mapping[str, Any]]:
    """Compute in float64 and round once, to the dtype of the files."""
    dtype = tensors[0].dtype
    try:
        with threads_for(tensors[0].numel()):
            exact, measured = combine([tensor.to(torch.float64) for tensor in tensors])
    except LorelineError as error:
        raise type(error)(f"tensor {name}: {error}") from None
    rounded = exact.to(dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise BadInput(f"tensor {name}: the merge overflows {dtype}; choose a λ (merge.lam) nearer to 1/N")
    return rounded, measured


def _identical(name: str, tensors: Sequence[torch.Tensor], inputs: Sequence[Weights]) -> torch.Tensor:
    for tensor, weights in zip(tensors, inputs, strict=True):
        if not torch.equal(tensor, tensors[-1]):
            raise BadInput(
                f"{weights.label}: tensor {name} ({tensor.dtype}) differs from {inputs[-1].label}; "
                "only floating-point tensors can be merged"
            )
    return tensors[-1]
