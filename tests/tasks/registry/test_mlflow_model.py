"""A version is an MLflow model: MLflow's own loaders and its server take it, from the one copy of the weights."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.publish import MANIFEST, Manifest
from tasks.base.records.merge import MergeReport
from tasks.base.records.model import AdapterBase
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.files import local_directory
from tasks.registry.mlflow_model import is_mlflows, mlflow_files, with_files
from tasks.registry.store import connect
from tasks.registry.versions import verify_files, version_of
from tests.support.server_process import Server, free_port
from tests.support.servers import mlflow_server

PREDICT = """
import sys, mlflow
pipeline = mlflow.transformers.load_model(sys.argv[1])
assert (pipeline.task, type(pipeline.model).__name__) == ("text-generation", "LlamaForCausalLM")
assert pipeline.tokenizer("one two")["input_ids"] == [1, 2]
text = pipeline("one two", max_new_tokens=3, do_sample=False)[0]["generated_text"]
served = mlflow.pyfunc.load_model(sys.argv[1])
[predicted] = served.predict(["one two"], params={"max_new_tokens": 3})
assert text.startswith("one two") and len(text) > len("one two"), text
assert predicted.startswith("one two") and len(predicted) < 40, predicted  # it samples
example = served.metadata.load_input_example(mlflow.artifacts.download_artifacts(sys.argv[1]))
assert len(served.predict(example)) == 1
print(mlflow.artifacts.download_artifacts(sys.argv[1]))
"""


def environment(store: RegisterParams) -> dict[str, str]:
    """Return what a user has set in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    named = {"MLFLOW_TRACKING_URI": connect(store).tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    return os.environ | named | {"PATH": path}


def predict(store: RegisterParams, model: str) -> Path:
    ran = subprocess.run(
        [sys.executable, "-c", PREDICT, model], env=environment(store), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return Path(ran.stdout.strip())


@pytest.mark.slow
def test_both_loaders_predict_from_the_registered_weights(store: RegisterParams, make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    register_model(store, artifacts)
    directory = predict(store, "models:/demo@challenger")
    [weights] = directory.rglob("*.safetensors")
    assert weights.samefile(artifacts / "merged" / "model.safetensors")
    assert not list(directory.rglob("*.pkl"))
    # MLflow noted in the store that it loaded the version; the version is whole all the same
    assert (directory / "registered_model_meta").exists()
    verify_files(connect(store), version_of(connect(store), "demo", 1))


@pytest.mark.servers
def test_a_server_that_keeps_the_files_gives_the_same(
    tmp_path: Path, own_state: Path, make_artifacts: Any
) -> None:
    with mlflow_server(tmp_path / "server") as running:
        store = RegisterParams(name="demo", tracking_uri=running.uri)
        register_model(store, make_artifacts())
        predict(store, "models:/demo/1")
        verify_files(connect(store), version_of(connect(store), "demo", 1))
        assert len(list((tmp_path / "server").rglob("*.safetensors"))) == 1


class ServedModel(Server):
    """`mlflow models serve`, as a user starts it."""

    def __init__(self, model: str, env: dict[str, str], log: Path) -> None:
        self.uri = f"http://127.0.0.1:{(port := free_port())}"
        options = ["-m", model, "--env-manager", "local", "--port", str(port), "--workers", "1"]
        super().__init__([sys.executable, "-m", "mlflow", "models", "serve", *options], env, log)

    def answers(self) -> object:
        with urllib.request.urlopen(f"{self.uri}/ping", timeout=10) as answer:
            return answer.status == 200

    def invoke(self, body: object) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.uri}/invocations", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.mark.servers
def test_models_serve_answers(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> None:
    register_model(store, make_artifacts())
    serving = ServedModel("models:/demo/1", environment(store), tmp_path / "log")
    try:
        serving.launch()
        serving.wait()
        answer = serving.invoke({"inputs": ["one two"], "params": {"max_new_tokens": 3}})
    finally:
        serving.stop()
    assert answer["predictions"][0].startswith("one two")


def described(artifacts: Path, **changes: Any) -> tuple[dict[str, bytes], Manifest]:
    merged = artifacts / "merged"
    report = MergeReport.read(merged / "merge.json").model_copy(update=changes)
    manifest = Manifest.read(merged / MANIFEST)
    added = mlflow_files(merged, manifest, report)
    return added, with_files(manifest, added)


def test_the_mlmodel_says_task_signature_example_and_requirements(make_artifacts: Any) -> None:
    added, manifest = described(make_artifacts())
    model = yaml.safe_load(added["MLmodel"])
    assert set(model["flavors"]) == {"transformers", "python_function"}
    assert model["flavors"]["transformers"]["task"] == "text-generation"
    assert json.loads(model["signature"]["inputs"])[0]["type"] == "string"
    assert json.loads(added[model["saved_input_example_info"]["artifact_path"]])
    assert {line.partition("==")[0] for line in added["requirements.txt"].decode().splitlines()} == {
        "mlflow",
        "transformers",
        "torch",
        "accelerate",
    }
    assert "+" not in added["requirements.txt"].decode()
    assert {file.name for file in manifest.files if is_mlflows(file.name)} == set(added)
    assert not [name for name in added if name.endswith((".safetensors", ".pkl", ".bin"))]


def test_the_same_merge_is_described_by_the_same_bytes(make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    assert described(artifacts) == described(artifacts)


def test_an_adapter_names_its_base_and_copies_nothing_of_it(make_artifacts: Any, tmp_path: Path) -> None:
    files = described(make_artifacts())[1].files
    for address, wanted in (
        (str(tmp_path / "base"), {"local_base_model_path": str(tmp_path / "base")}),
        ("hf://lab/base@1a2b", {"source_model_name": "lab/base", "source_model_revision": "1a2b"}),
    ):
        added, _ = described(tmp_path / "artifacts", base=AdapterBase(address=address, files=files))
        flavour = yaml.safe_load(added["MLmodel"])["flavors"]["transformers"]
        assert wanted.items() <= flavour.items()
        assert flavour["peft_adaptor"] == "."
        assert "model_binary" not in flavour
        assert b"peft==" in added["requirements.txt"]


@pytest.mark.slow
def test_a_merged_adapter_is_loaded_on_its_base(make_artifacts: Any, tmp_path: Path) -> None:
    import mlflow.transformers

    from tests.support.tiny_adapters import write_adapter, write_llama

    whole = make_artifacts() / "merged"
    base = write_llama(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((whole / name).read_bytes())
    adapter = write_adapter(tmp_path / "adapter", base, 1, r=2, target_modules=["q_proj"])
    files = file_digests(adapter, [path for path in adapter.iterdir() if path.is_file()])
    known = AdapterBase(address=str(base), files=file_digests(base, base.iterdir()))
    report = MergeReport.read(whole / "merge.json").model_copy(update={"base": known})
    for name, data in mlflow_files(adapter, Manifest(made_from="", files=files), report).items():
        (adapter / name).parent.mkdir(parents=True, exist_ok=True)
        (adapter / name).write_bytes(data)
    pipeline = mlflow.transformers.load_model(str(adapter))
    assert type(pipeline.model).__name__ == "PeftModel"  # as the adapter says
    assert pipeline("one two", max_new_tokens=2)[0]["generated_text"].startswith("one two")


def test_what_transformers_cannot_load_gets_no_mlmodel(make_artifacts: Any) -> None:
    artifacts = make_artifacts()
    manifest = Manifest.read(artifacts / "merged" / MANIFEST)
    others = tuple(file for file in manifest.files if file.name != "config.json")
    report = MergeReport.read(artifacts / "merged" / "merge.json")
    manifest = manifest.model_copy(update={"files": others})
    assert mlflow_files(artifacts / "merged", manifest, report) == {}


def test_a_changed_mlmodel_is_noticed(store: RegisterParams, make_artifacts: Any) -> None:
    register_model(store, make_artifacts())
    version = version_of(connect(store), "demo", 1)
    stored = local_directory(version.uri)
    assert stored is not None
    (stored / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}")
    with pytest.raises(BadInput, match=r"MLmodel: changed"):
        verify_files(connect(store), version)
