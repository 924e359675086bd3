"""The files of a checkpoint directory: weights, configuration, and those that are never opened."""

import re
from collections.abc import Mapping, Set
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, is_unicode
from tasks.base.json_files import read_json
from tasks.checkpoints.header import FLOATING, TensorInfo, read_header
from tasks.checkpoints.pickled.kinds import PickledState, find_pickled

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
STATE = "trainer_state.json"
MEAN = "mean.json"
"""Beside the weights of a mean that the callback kept: the steps that it is of."""
LORELINE_FILES = ("merge.json", "manifest.json", MEAN)
SIDE_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
READABLE = ("*.safetensors", *SIDE_FILES)
"""Names of the files that are read from a checkpoint: no pickles, no code."""
CONSOLIDATED = "consolidated*.safetensors"
"""Mistral's own layout, beside that of transformers: the same weights under other names."""
PICKLES = ("*.pt", "*.pth")
WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
"""Keys of config.json for the width of a model."""
CONVERT = "from transformers import AutoModelForCausalLM as M; M.from_pretrained(D).save_pretrained(D)"


def weight_files(directory: Path) -> list[Path]:
    """List the safetensors files of a model, the index followed but never out of the directory.

    A single file comes before an index, as in transformers: save_pretrained leaves an older index there.
    Raises BadInput for a model without safetensors, and for an index that names a file elsewhere.
    """
    if (directory / SINGLE).exists():
        return [inside(directory, directory / SINGLE)]
    if _is_sharded(directory):
        names = sorted(set(read_index(directory).values()))
        return [inside(directory, directory / name) for name in names]
    if is_adapter(directory):
        raise BadInput(directory, "is a PEFT adapter, no whole model", "name the model that it is made for")
    if any(directory.glob(CONSOLIDATED)):
        raise BadInput(
            directory,
            f"holds {CONSOLIDATED} only, whose tensors have other names than transformers gives them",
            "convert it to transformers' layout, and name the result",
        )
    if state := find_pickled(directory):
        by_hand = f"; or in Python: D = {str(directory)!r}; {CONVERT}" if state.kind == "torch" else ""
        raise BadInput(
            directory,
            f"holds pickled weights only ({state.what}), which are not opened",
            f"set fetch.convert to true, and they are converted safely when the run is fetched{by_hand}",
        )
    if any(path for pattern in PICKLES for path in directory.glob(pattern)):
        raise BadInput(
            directory,
            "holds pickled weights only, of an unknown kind, which are never opened",
            "save them as safetensors where you trust them",
        )
    raise BadInput(directory, f"no {SINGLE} and no {INDEX}", "name a directory with safetensors weights")


def pickled_state(directory: Path) -> PickledState | None:
    """Return the pickled state that is a checkpoint's model: it has no safetensors, or only shells of ZeRO-3.

    Raises BadInput as `read_tensors` does, for safetensors that are damaged.
    """
    if is_adapter(directory) or not (state := find_pickled(directory)):
        return None
    whole = any((directory / name).exists() for name in (SINGLE, INDEX))
    return None if whole and (state.kind != "zero" or not _is_shell(directory)) else state


def _is_shell(directory: Path) -> bool:
    there = all(path.exists() for path in weight_files(directory))
    return there and bool(_shells(directory, _placed(directory)))


def is_adapter(directory: Path) -> bool:
    """Tell whether a directory holds a PEFT adapter and no whole model."""
    whole = any((directory / name).exists() for name in (SINGLE, INDEX))
    return (directory / ADAPTER_CONFIG).is_file() and not whole


def adapter_file(directory: Path) -> Path:
    """Return an adapter's weights file, which may be missing; BadInput where it is a pickle."""
    path = inside(directory, directory / ADAPTER_WEIGHTS)
    if not path.exists() and (directory / "adapter_model.bin").exists():
        raise BadInput(
            directory,
            f"has no {ADAPTER_WEIGHTS}; its adapter_model.bin is a pickle, which is never opened",
            "save it again with safe_serialization=True",
        )
    return path


def stored_weights(directory: Path) -> list[Path]:
    """List the weight files of a model or an adapter; raises BadInput where there are none to be read."""
    return [adapter_file(directory)] if is_adapter(directory) else weight_files(directory)


def read_index(directory: Path) -> dict[str, str]:
    """Return tensor name → file name of a sharded model."""
    weight_map = read_json(inside(directory, directory / INDEX)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(directory / INDEX, "has no weight_map", "save or fetch it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}\.safetensors", name):
            raise BadInput(
                directory / INDEX,
                f"names {name!r}, which is not a weight file beside it",
                "save or fetch it again",
            )
    return weight_map


def read_tensors(directory: Path) -> dict[str, tuple[Path, TensorInfo]]:
    """Return tensor name → file and place, the files checked to be whole (BadInput otherwise)."""
    tensors = _placed(directory)
    if shells := _shells(directory, tensors):
        raise BadInput(
            directory,
            f"tensor {min(shells)} is empty, as DeepSpeed's ZeRO-3 leaves one that was not gathered",
            "set fetch.convert to true, which puts together what DeepSpeed's global_step directory has of "
            "them, or gather them with the zero_to_fp32.py that DeepSpeed wrote there, or set "
            "stage3_gather_16bit_weights_on_model_save before training",
        )
    return tensors


def _placed(directory: Path) -> dict[str, tuple[Path, TensorInfo]]:
    tensors: dict[str, tuple[Path, TensorInfo]] = {}
    for path in weight_files(directory):
        if not path.exists():
            raise BadInput(path, "missing, but the index names it", "fetch the checkpoint again")
        for name, info in read_header(path).items():
            if name in tensors:
                raise BadInput(path, f"tensor {name} is also in {tensors[name][0].name}", "save it again")
            tensors[name] = (path, info)
    if _is_sharded(directory):
        _check_index(directory, tensors.keys())
    if not tensors:
        raise BadInput(directory, "holds no tensor", "name a directory with a model")
    return tensors


def _shells(directory: Path, tensors: Mapping[str, tuple[Path, TensorInfo]]) -> list[str]:
    """List what ZeRO-3 leaves of parameters whose parts lie on other processes."""
    shells = [name for name, (_, info) in tensors.items() if info.shape == (0,) and info.dtype in FLOATING]
    if not shells or not (directory / CONFIG).is_file():
        return []
    return shells if _has_a_width(read_json(directory / CONFIG)) else []


def _has_a_width(config: Mapping[str, Any]) -> bool:
    """Tell whether a configuration describes a model whose matrices have elements."""
    nested = [value for value in config.values() if isinstance(value, dict)]
    widths = [part.get(key) for part in (config, *nested) for key in WIDTHS]
    return any(isinstance(width, int) and width > 0 for width in widths)


def _is_sharded(directory: Path) -> bool:
    return (directory / INDEX).exists() and not (directory / SINGLE).exists()


def _check_index(directory: Path, held: Set[str]) -> None:
    named = read_index(directory).keys()
    if missing := named - held:
        problem = f"the index names tensor {min(missing)}, but no shard holds it"
    elif surplus := held - named:
        problem = f"a shard holds tensor {min(surplus)}, which the index does not name"
    else:
        return
    raise BadInput(directory, problem, "save or fetch it again")


def side_files(directory: Path) -> list[Path]:
    """List what a model needs beside its weights: configuration, tokenizer, templates; no code, no pickle."""
    found = {path for pattern in SIDE_FILES for path in directory.glob(pattern)}
    return sorted(
        inside(directory, path)
        for path in found
        if path.name not in (STATE, *LORELINE_FILES) and not path.name.endswith(".index.json")
    )


def wanted_files(directory: Path) -> list[Path]:
    """List what a merge needs of a checkpoint: weights, configuration, tokenizer and training state.

    Raises BadInput for a directory without weights that can be read.
    """
    wanted = [*stored_weights(directory), *side_files(directory)]
    beside = [INDEX] if _is_sharded(directory) else []
    beside += [STATE] if (directory / STATE).exists() else []
    return wanted + [inside(directory, directory / name) for name in beside]


def is_readable(name: str) -> bool:
    """Tell by its name whether a file of a checkpoint is ever read."""
    readable = any(fnmatchcase(name, pattern) for pattern in READABLE)
    return readable and not fnmatchcase(name.rpartition("/")[2], CONSOLIDATED)


def inside(directory: Path, path: Path) -> Path:
    """Refuse a link that leaves the directory; a Hub cache is made of links to its own blobs."""
    if path.is_symlink():
        homes = [directory.resolve()]
        repos = [parent.parent for parent in directory.resolve().parents if parent.name == "snapshots"]
        homes += [place / "blobs" for repo in repos for place in (repo, repo.parent)]
        try:
            place = path.resolve()
        except (OSError, RuntimeError):
            raise BadInput(path, "is a link that leads nowhere", "put the file itself there") from None
        if not any(place.is_relative_to(home) for home in homes):
            raise BadInput(path, "is a link out of its directory", "put the file itself there")
        if not place.exists():
            raise BadInput(path, "is a link that leads nowhere", "put the file itself there")
    if not is_unicode(path.name):
        raise BadInput(path, "has a name that is not UTF-8", "rename it or remove it")
    if path.exists() and not path.is_file():
        raise BadInput(path, "not a regular file", "remove it or fetch the checkpoint again")
    return path
