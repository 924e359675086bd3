"""The process that converts: its task comes on the standard input, how it goes is said on the output.

Started by `process.py`; one JSON object a line, both ways.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, LorelineError, brief, of_system
from tasks.checkpoints.pickled.dcp import read_dcp
from tasks.checkpoints.pickled.guard import confine
from tasks.checkpoints.pickled.stored import StoredTensor
from tasks.checkpoints.pickled.torch_files import read_torch_files
from tasks.checkpoints.pickled.writing import write_model
from tasks.checkpoints.pickled.zero import read_zero

READERS: dict[str, Callable[[Sequence[Path]], dict[str, StoredTensor]]] = {
    "torch": read_torch_files,
    "dcp": read_dcp,
    "zero": read_zero,
}


def run_conversion() -> int:
    """Convert what the first line of the standard input names; end when that is closed."""
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _convert(task)
    except LorelineError as error:
        _say(error=[error.subject, error.problem, error.remedy], mendable=isinstance(error, BadInput))
        return error.exit_code
    return 0


def _convert(task: dict[str, Any]) -> None:
    import safetensors.torch  # what is imported later would meet the guard
    import torch

    torch.set_num_threads(1)
    files, target = [Path(path) for path in task["files"]], Path(task["target"])
    try:
        size = sum(path.stat().st_size for path in files)
        confine(target, size)
        tensors = READERS[task["kind"]](files)
        described = sum(tensor.size for tensor in tensors.values())
        if described > 2 * size:  # a view can repeat its elements for nothing
            problem = f"{described} bytes of tensors are described in files of {size}"
            raise BadInput(task["label"], problem, "save or fetch the checkpoint again")
        write_model(
            tensors, target, task["label"], task["tied"], lambda done, total: _say(done=done, total=total)
        )
    except LorelineError:
        raise
    except OSError as error:
        raise of_system(error, target) from None
    except safetensors.SafetensorError as error:  # it wraps what the system refuses
        raise LorelineError(target, f"cannot be written ({brief(error)})", "make room there") from None
    except (MemoryError, RuntimeError, ValueError) as error:
        raise BadInput(task["label"], f"cannot be converted ({brief(error)})", "convert it by hand") from None


def _end_with_parent() -> None:
    sys.stdin.read()  # until the parent ends: one that is killed closes the pipe too
    os._exit(1)


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    sys.exit(run_conversion())
