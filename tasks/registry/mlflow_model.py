"""What makes a merge an MLflow model of the transformers flavour: text beside its files, no weights."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tasks.base.digests import bytes_digest
from tasks.base.hub_address import HUB
from tasks.base.model_files import address_directory
from tasks.base.publish import Manifest
from tasks.base.records.merge import MergeReport
from tasks.base.records.model import AdapterBase

TASK, MAX_NEW_TOKENS = "text-generation", 256
EXAMPLE, SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"
ENVIRONMENT, REQUIREMENTS = "python_env.yaml", "requirements.txt"
COMPONENTS = "components/"
TEXTS = ("MLmodel", ENVIRONMENT, REQUIREMENTS, EXAMPLE, SERVED_EXAMPLE)
PACKAGES = ("mlflow", "transformers", "torch", "accelerate")
ANY_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
PARTS = (".json", ".jinja", ".model", ".txt")
"""Endings of a tokenizer's files and of the configuration that names its class."""
NO_PART = ("merge.json", ".index.json", "adapter_config.json", "generation_config.json")


def mlflow_files(directory: Path, manifest: Manifest, report: MergeReport) -> dict[str, bytes]:
    """Return what MLflow needs beside a merge's files, by name; nothing where transformers cannot load it.

    Weights stay where they are, at the top: `model_binary` names the directory itself. The tokenizer, a few
    megabytes at most, lies a second time below components/, the only place where MLflow looks. Classes are
    transformers' Auto classes, for which MLflow trusts no remote code. The same merge and packages give the
    same bytes.
    """
    names = {file.name for file in manifest.files}
    if not names & {"config.json", "adapter_config.json"}:
        return {}
    on_hub = report.base is not None and report.base.address.startswith(HUB)
    tokenizer = {} if on_hub else _tokenizer(directory, names, report.base)
    flavour = _flavour(report.base, has_tokenizer=bool(tokenizer) or on_hub)
    example = {"inputs": ["One two three"]}
    size = sum(file.size for file in manifest.files)
    return tokenizer | {
        "MLmodel": _mlmodel(flavour, report.digest, size),
        REQUIREMENTS: "".join(f"{line}\n" for line in _requirements(report.base)).encode(),
        ENVIRONMENT: _yaml({"dependencies": [f"-r {REQUIREMENTS}"]}),
        EXAMPLE: json.dumps(example["inputs"]).encode(),
        SERVED_EXAMPLE: json.dumps(example, indent=2).encode(),
    }


def with_files(manifest: Manifest, added: Mapping[str, bytes]) -> Manifest:
    """Return the manifest of a directory to which these files are added."""
    new = [bytes_digest(name, data, like=manifest.files[0]) for name, data in added.items()]
    files = sorted([*manifest.files, *new], key=lambda file: file.name)
    return manifest.model_copy(update={"files": tuple(files)})


def is_mlflows(name: str) -> bool:
    """Tell whether a file of a version is there for MLflow only."""
    return name in TEXTS or name.startswith(COMPONENTS)


def _tokenizer(directory: Path, names: Iterable[str], base: AdapterBase | None) -> dict[str, bytes]:
    """Return the tokenizer's files by their names below components/; an adapter may use its base's."""
    if base and not set(ANY_TOKENIZER) & set(names):
        directory, names = address_directory(base.address), [file.name for file in base.files]
    if not set(ANY_TOKENIZER) & set(names):
        return {}
    beside = [name for name in names if name.endswith(PARTS) and not name.endswith(NO_PART)]
    return {f"{COMPONENTS}tokenizer/{name}": (directory / name).read_bytes() for name in sorted(beside)}


def _flavour(base: AdapterBase | None, has_tokenizer: bool) -> dict[str, Any]:
    """Return what mlflow.transformers reads of the MLmodel."""
    found: dict[str, Any] = {
        "task": TASK,
        "instance_type": "TextGenerationPipeline",
        "pipeline_model_type": "AutoModelForCausalLM",
        "transformers_version": version("transformers"),
        "code": None,
        "components": ["tokenizer"] if has_tokenizer else [],
    }
    if has_tokenizer:
        found["tokenizer_type"] = "AutoTokenizer"
    if base is None:
        return found | {"model_binary": "."}
    found["peft_adaptor"] = "."
    if not base.address.startswith(HUB):
        return found | {"local_base_model_path": base.address}
    repo, _, commit = base.address.removeprefix(HUB).partition("@")
    return found | {
        "source_model_name": repo,
        "source_model_revision": commit,
        "tokenizer_name": repo,
        "tokenizer_revision": commit,
    }


def _mlmodel(flavour: dict[str, Any], digest: str, size: int) -> bytes:
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text = Schema([ColSpec(DataType.string)])
    params = ParamSchema([ParamSpec("max_new_tokens", DataType.long, MAX_NEW_TOKENS)])
    model = Model(
        signature=ModelSignature(inputs=text, outputs=text, params=params),
        saved_input_example_info={
            "artifact_path": EXAMPLE,
            "type": "json_object",
            "serving_input_path": SERVED_EXAMPLE,
        },
        model_uuid=digest[:32],
        model_size_bytes=size,
    )
    model.add_flavor("transformers", **flavour)
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", python_env=ENVIRONMENT)
    tree = model.to_dict()
    del tree["utc_time_created"]  # or the same merge would never be the same file
    return _yaml(tree)


def _requirements(base: AdapterBase | None) -> list[str]:
    packages = (*PACKAGES, "peft") if base else PACKAGES
    # without the local part of a build, +cpu, which no index has
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


def _yaml(tree: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(tree, sort_keys=True, allow_unicode=True).encode()
