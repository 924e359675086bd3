"""Runs in object stores: a real S3 server, fsspec's memory, a file system and a web server beside it."""

import functools
import http.server
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import save_file

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.fetch_run import fetch_run
from tasks.parameters.fetch import FetchParams
from tasks.sources import object_cache
from tasks.sources.addresses import normal_address, observe, sources_in
from tasks.sources.kinds import object_store
from tasks.sources.kinds.object_store import ObjectStoreSource
from tasks.sources.staging import staged
from tests.support.ended_runs import HOUR, finished
from tests.support.fetching import REGISTRY, fetched
from tests.support.killing import kill, spawn
from tests.support.mlflow_runs import value_of
from tests.support.s3_server import KEY, S3, SECRET
from tests.support.tiny import write_checkpoint


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Name the server and its credentials as users do."""
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    return server


@pytest.fixture
def bucket(s3: S3) -> str:
    return s3.bucket()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serve tmp_path as web servers do: without checksums, and whole files only."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_same_run_from_every_store_has_the_same_digest(
    s3: S3, bucket: str, web: str, output: Path, tmp_path: Path
) -> None:
    s3.upload(output, bucket, "runs/mine")
    fsspec.filesystem("memory").put(f"{output}/", "/mine", recursive=True)
    local = fetch_run(FetchParams(source=str(output), settle=0), tmp_path / "local")
    for address in (f"s3://{bucket}/runs/mine", "memory://mine", f"file://{output}", f"{web}/out"):
        artifacts = tmp_path / address.partition(":")[0]
        run = fetch_run(FetchParams(source=address, settle=0), artifacts)
        assert run.digest == local.digest, address
        assert [c.source for c in run.checkpoints] == [f"{address}/checkpoint-{step}" for step in (20, 100)]
        assert {path.name for path in staged(run.checkpoints[0], artifacts).iterdir()} == {
            "model.safetensors", "config.json", "tokenizer.json", "trainer_state.json",
        }  # fmt: skip
    methods = {each.method for each in s3.requests if each.path.startswith(f"/{bucket}")}
    assert methods - {"PUT"} == {"GET", "HEAD"}
    assert not [each for each in s3.requests if each.path.endswith((".pt", ".bin", ".py")) and each.range]


def test_what_is_staged_no_more_is_brought_again(s3: S3, bucket: str, output: Path, tmp_path: Path) -> None:
    s3.upload(output, bucket, "mine")
    run = fetch_run(FetchParams(source=f"s3://{bucket}/mine", settle=0), tmp_path / "artifacts")
    for lost in ("artifacts/checkpoints", "cache"):
        shutil.rmtree(tmp_path / lost, ignore_errors=True)
    shutil.rmtree(ObjectStoreSource().restore(run.checkpoints[1].source))
    assert value_of(staged(run.checkpoints[1], tmp_path / "artifacts")) == 100.0


def test_a_sharded_run_and_one_of_adapters(s3: S3, bucket: str, tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "sharded", 10)
    (directory / "model.safetensors").unlink()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for n, name in enumerate(names):
        save_file({f"w{n}": torch.full((4,), float(n))}, directory / name, metadata={"format": "pt"})
    index = {"weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    adapter = write_checkpoint(tmp_path / "adapters", 10)
    (adapter / "model.safetensors").unlink()
    lora = {
        f"base_model.model.layer.lora_{side}.weight": torch.ones(shape)
        for side, shape in (("A", (2, 4)), ("B", (4, 2)))
    }
    save_file(lora, adapter / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["layer"],
        "base_model_name_or_path": "base",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    s3.upload(tmp_path, bucket, "runs")
    [whole] = fetched(f"s3://{bucket}/runs/sharded").checkpoints
    assert {path.name for path in whole.directory.glob("*.safetensors")} == set(names)
    [small] = fetched(f"s3://{bucket}/runs/adapters").checkpoints
    assert (small.directory / "adapter_model.safetensors").is_file()


# --- what changes -----------------------------------------------------------------------------------


def test_only_what_changed_is_read_again(s3: S3, bucket: str, output: Path) -> None:
    address = f"s3://{bucket}/mine"
    s3.upload(output, bucket, "mine")
    before = observe(address, HOUR, REGISTRY)
    s3.read()
    fetched(address)
    assert len(s3.read()) == 8
    fetched(address)
    assert s3.read() == []
    s3.put(bucket, "mine/checkpoint-20/config.json", b'{"model_type": "other"}')
    later = write_checkpoint(output, 300, {"w": torch.full((4,), 300.0)})
    s3.upload(later, bucket, "mine/checkpoint-300")
    assert observe(address, HOUR, REGISTRY).digest != before.digest
    s3.requests.clear()
    assert [value_of(c.directory) for c in fetched(address).checkpoints] == [20.0, 100.0, 300.0]
    read = [each.path.removeprefix(f"/{bucket}/mine/") for each in s3.read()]
    assert sorted(read) == sorted(
        ["checkpoint-20/config.json"]
        + [f"checkpoint-300/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "trainer_state.json")]
    )  # fmt: skip


def test_an_object_that_is_overwritten_between_listing_and_reading_is_read_anew(
    s3: S3, bucket: str, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of its parts: half of the old one and half of the new would be a file of the right size."""
    monkeypatch.setattr(object_cache, "CHUNK", 64)
    monkeypatch.setattr(object_cache, "READS_AT_ONCE", 1)
    s3.upload(output, bucket, "mine")
    other = write_checkpoint(tmp_path / "other", 20, {"w": torch.full((4,), 21.0)}) / "model.safetensors"
    overwritten = []

    def overwrite(path: str, part: str) -> None:
        if (
            path.endswith("checkpoint-20/model.safetensors")
            and not part.startswith("bytes=0-")
            and not overwritten
        ):
            overwritten.append(part)
            s3.put(bucket, "mine/checkpoint-20/model.safetensors", other.read_bytes())

    s3.before = overwrite
    found = fetched(f"s3://{bucket}/mine")
    assert overwritten
    assert (found.checkpoints[0].directory / "model.safetensors").read_bytes() == other.read_bytes()


def test_a_checkpoint_that_does_not_settle_is_left_out(s3: S3, bucket: str, output: Path) -> None:
    s3.upload(output, bucket, "mine")
    count = iter(range(1000))

    def overwrite(path: str, part: str) -> None:
        if path.endswith("checkpoint-20/config.json"):
            s3.put(bucket, "mine/checkpoint-20/config.json", b"{}" + b" " * next(count))

    s3.before = overwrite
    found = fetched(f"s3://{bucket}/mine")
    assert [c.name for c in found.checkpoints] == ["checkpoint-100"]
    assert [(left.name, left.reason) for left in found.left_out] == [
        ("checkpoint-20", "config.json changed while it was read")
    ]


def test_a_killed_download_goes_on_where_it_stopped(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_cache, "CHUNK", 1 << 16)
    monkeypatch.setattr(object_cache, "READS_AT_ONCE", 2)
    directory = write_checkpoint(tmp_path / "out", 20, {"w": torch.randn(1 << 18)})
    size = (directory / "model.safetensors").stat().st_size
    s3.upload(tmp_path / "out", bucket, "mine")
    address, reached = f"s3://{bucket}/mine", threading.Event()
    killed = threading.Event()

    def stop(path: str, part: str) -> None:
        if (
            path.endswith("model.safetensors")
            and int(part.removeprefix("bytes=").partition("-")[0]) >= 1 << 19
        ):
            reached.set()
            killed.wait(60)

    s3.before = stop
    child = spawn(fetched, address)
    assert reached.wait(60)
    kill(child)
    killed.set()
    time.sleep(0.3)  # until the last answers to the killed one are recorded
    s3.read()
    [checkpoint] = fetched(address).checkpoints
    again = sum(each.sent for each in s3.read() if each.path.endswith("model.safetensors"))
    assert again == size - (1 << 19)
    assert (checkpoint.directory / "model.safetensors").read_bytes() == (
        directory / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_cut_connection_is_said_and_what_came_stays(
    s3: S3, bucket: str, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.upload(output, bucket, "mine")
    address = f"s3://{bucket}/mine"

    def fail(path: str, part: str) -> None:
        if path.endswith("checkpoint-20/tokenizer.json"):
            raise ConnectionResetError

    s3.before = fail
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unavailable, match=f"{address}/checkpoint-20: the store cannot be reached"):
        fetched(address)
    s3.before = lambda path, part: None
    s3.read()
    assert len(fetched(address).checkpoints) == 2
    assert "checkpoint-20/model.safetensors" not in str(s3.read())


# --- how it looks to the watcher --------------------------------------------------------------------


def test_a_run_has_ended_when_its_state_says_so_and_nothing_is_missing(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = finished(tmp_path / "run", 10, 20)
    for name in ("config.json", "tokenizer.json", "trainer_state.json"):  # small files come first
        s3.put(bucket, f"run/checkpoint-20/{name}", (output / "checkpoint-20" / name).read_bytes())
    s3.upload(output / "checkpoint-10", bucket, "run/checkpoint-10")
    address = f"s3://{bucket}/run"
    seen = observe(address, HOUR, REGISTRY)
    assert not seen.ended
    assert (
        "checkpoint-20 has no weights in safetensors: still being copied, or saved in pickles" in seen.reason
    )
    assert [left.name for left in fetched(address).left_out] == ["checkpoint-20"]
    s3.put(
        bucket,
        "run/checkpoint-20/model.safetensors",
        (output / "checkpoint-20" / "model.safetensors").read_bytes(),
    )
    monkeypatch.setattr(object_store, "SETTLED_S", -1.0)  # S3 tells times in whole seconds
    seen = observe(address, HOUR, REGISTRY)
    assert (seen.ended, seen.reason) == (True, "training state says so (step 20 of 20)")
    assert observe(address, HOUR, REGISTRY) == seen


def test_shards_that_are_missing_make_it_wait(tmp_path: Path) -> None:
    output = finished(tmp_path / "run", 10)
    weights = output / "checkpoint-10" / "model.safetensors"
    (output / "checkpoint-10" / "model.safetensors.index.json").write_text("{}")
    weights.rename(weights.with_name("model-00001-of-00002.safetensors"))
    assert "has 1 of 2 shards" in observe(f"file://{output}", HOUR, REGISTRY).reason
    assert not observe(f"file://{output}", HOUR, REGISTRY).ended


def test_a_run_that_stopped_without_saying_so_has_ended_when_it_is_old(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", 10)
    address = f"file://{tmp_path}/run"
    assert "still training: step 10" in observe(address, HOUR, REGISTRY).reason
    assert observe(address, 0, REGISTRY).ended


def test_a_root_holds_the_runs_below_it(s3: S3, bucket: str, output: Path, tmp_path: Path) -> None:
    s3.upload(output, bucket, "runs/one")
    s3.upload(output, bucket, "runs/two words")
    s3.put(bucket, "runs/empty/notes.txt", b"")
    s3.put(bucket, "runs/checkpoint-3.txt", b"")
    assert sources_in([f"s3://{bucket}/runs/"], tmp_path, REGISTRY) == [
        f"s3://{bucket}/runs/one", f"s3://{bucket}/runs/two words",
    ]  # fmt: skip
    assert sources_in([f"s3://{bucket}/runs/one/"], tmp_path, REGISTRY) == [f"s3://{bucket}/runs/one"]
    assert normal_address(f"s3://{bucket}/runs/one/", tmp_path) == f"s3://{bucket}/runs/one"
    with pytest.raises(
        BadInput, match=f"s3://{bucket}/nowhere: there is nothing; check the bucket and the path"
    ):
        sources_in([f"s3://{bucket}/nowhere"], tmp_path, REGISTRY)


# --- names that are no files ------------------------------------------------------------------------


def test_odd_keys_lead_nowhere(s3: S3, bucket: str, output: Path, own_state: Path) -> None:
    s3.upload(output, bucket, "mine")
    for key in ("mine/", "mine/checkpoint-20", "mine/checkpoint-20/", "mine/checkpoint-20/../../evil.json",
                "mine/checkpoint-20//tmp/evil.json", "mine/checkpoint-20/config.json/evil.json", "mine/../checkpoint-7/x.json"):  # fmt: skip
        s3.put(bucket, key, b"{}")
    found = fetched(f"s3://{bucket}/mine")
    assert [c.name for c in found.checkpoints] == ["checkpoint-20", "checkpoint-100"]
    assert list(own_state.rglob("evil.json")) == []


@pytest.mark.parametrize("name", ["..\\evil.json", f"{'x' * 300}.json", "100%.json"])
def test_a_name_that_no_file_can_have_is_refused(s3: S3, bucket: str, output: Path, name: str) -> None:
    s3.upload(output, bucket, "mine")
    s3.put(bucket, f"mine/checkpoint-20/{name}", b"{}")
    with pytest.raises(BadInput, match="which is no name of a file; rename it or remove it") as told:
        fetched(f"s3://{bucket}/mine")
    assert "\n" not in str(told.value)


# --- what goes wrong --------------------------------------------------------------------------------


def test_what_is_not_there_is_named(s3: S3, bucket: str) -> None:
    for address in (
        "s3://no-such-bucket-anywhere/run",
        f"s3://{bucket}/run",
        "memory://nowhere",
        "file:///nowhere",
    ):
        with pytest.raises(BadInput, match=f"{address}: there is nothing"):
            fetched(address)
    s3.put(bucket, "run/model.safetensors", b"")
    with pytest.raises(BadInput, match=f"s3://{bucket}/run: holds no checkpoint-N folder"):
        fetched(f"s3://{bucket}/run")
    with pytest.raises(BadInput, match="cannot be an address of that store"):
        fetched("s3://Not_A_Bucket!/run")


def test_access_that_is_refused_and_credentials_that_lack(
    s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.denied = True
    with pytest.raises(BadInput, match="access is refused, or there are no credentials"):
        fetched(f"s3://{bucket}/run")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BadInput, match="access is refused, or there are no credentials"):
        fetched(f"s3://{bucket}/run")
    s3.denied = False
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    with pytest.raises(BadInput, match="there is nothing"):
        fetched(f"s3://{bucket}/run")


@pytest.mark.slow
def test_an_s3_server_that_does_not_answer(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(Unavailable, match="s3://bucket/run: the store cannot be reached"):
        fetched("s3://bucket/run")


def test_a_file_larger_than_a_part_needs_a_server_that_sends_parts(
    web: str, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_cache, "CHUNK", 50)
    with pytest.raises(BadInput, match="its server does not send parts of files"):
        fetched(f"{web}/out")


def test_no_secret_is_told(
    s3: S3,
    bucket: str,
    output: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    s3.upload(output, bucket, "mine")
    fetch_run(FetchParams(source=f"s3://{bucket}/mine", settle=0), tmp_path / "artifacts")
    s3.denied = True
    with pytest.raises(LorelineError) as told:
        fetched(f"s3://{bucket}/mine")
    records = "".join(path.read_text() for path in (tmp_path / "artifacts").rglob("*.json"))
    said = "".join([records, caplog.text, *capfd.readouterr(), str(told.value), repr(told.value.__cause__)])
    assert f"s3://{bucket}/mine: 0.0 MB downloaded" in said
    assert KEY not in said
    assert SECRET not in said
