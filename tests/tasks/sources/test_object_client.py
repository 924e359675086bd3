"""What stores tell and refuse, without a server: odd addresses, names and sizes, packages that lack, no room."""

import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from safetensors.torch import save_file

from tasks.base.errors import BadInput, Unavailable
from tasks.doctor.parameters import check_source
from tasks.doctor.training_runs import local_runs
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params
from tasks.parameters.watch import WatchParams
from tasks.sources.addresses import observe, sources_in
from tasks.sources.kinds import object_store
from tasks.sources.kinds.object_store import ObjectStoreSource
from tests.support.fetching import REGISTRY, fetched


@pytest.mark.parametrize("name", ["..", "other", "checkpoint-20/..", "checkpoint-"])
def test_only_a_checkpoint_is_brought_again(name: str) -> None:
    with pytest.raises(BadInput, match="write s3://bucket/run"):
        ObjectStoreSource().restore(f"memory://mine/{name}")


@pytest.mark.parametrize(
    "address",
    ["s3://me:s3cret@bucket/run", "s3://s3cret@bucket/run", "s3://bucket/run?X-Amz-Signature=s3cret", "s3://bucket/../run",
     "s3://bucket//run", "s3://bucket/run#s3cret", "http://me:s3cret@host/run", "s3://bucket/a\\b", "s3://bucket/runs/*",
     "s3://..", "s3://"],
)  # fmt: skip
def test_an_address_with_more_than_a_place_is_refused_without_being_quoted(
    address: str, tmp_path: Path
) -> None:
    for act in (
        lambda: fetched(address), lambda: observe(address, 0, REGISTRY), lambda: sources_in([address], tmp_path, REGISTRY),
    ):  # fmt: skip
        with pytest.raises(
            BadInput, match="not an address of a folder in a store; write s3://bucket/run"
        ) as told:
            act()
        assert "s3cret" not in str(told.value)


def test_a_protocol_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="or an address such as s3://bucket/run"):
        observe("s4://bucket/run", 0, REGISTRY)


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_package_that_lacks_is_named(protocol: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        BadInput,
        match=f"{protocol}://bucket/run: no package for {protocol}:// is installed; .*install {package}",
    ):
        fetched(f"{protocol}://bucket/run")


def test_a_store_that_does_not_answer() -> None:
    with pytest.raises(Unavailable, match="http://127.0.0.1:9/run: the store cannot be reached"):
        fetched("http://127.0.0.1:9/run")


def test_a_link_out_of_a_run_is_refused(output: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"a": "secret"}')
    (output / "checkpoint-20" / "generation_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match="generation_config.json: not a regular file"):
        fetched(f"file://{output}")


def test_many_other_keys_are_not_described(tmp_path: Path, output: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{output}/", "/many", recursive=True)
    memory.pipe({f"/many/checkpoint-20/global_step{n}.pt": b"" for n in range(5_000)})
    assert len(fetched("memory://many").checkpoints) == 2


def test_a_damaged_checkpoint_is_named_by_its_address(output: Path) -> None:
    (output / "checkpoint-20" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(BadInput, match=f"file://{output}/checkpoint-20: "):
        fetched(f"file://{output}")


class Boasting(MemoryFileSystem):
    """Tells sizes that are none."""

    size: object = None

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        found = super().ls(path, detail=True, **more)
        return [{**info, "size": self.size} if info["type"] == "file" else info for info in found]

    info = MemoryFileSystem.info


@pytest.fixture
def boasting(output: Path, monkeypatch: pytest.MonkeyPatch) -> Boasting:
    fsspec.filesystem("memory").put(f"{output}/", "/boasting", recursive=True)
    store = Boasting()
    monkeypatch.setattr(object_store, "open_store", lambda address: (store, "/boasting"))
    return store


@pytest.mark.parametrize("size", ["3", -1, 1.5, True])
def test_a_size_that_is_none_is_refused(boasting: Boasting, size: object) -> None:
    boasting.size = size
    with pytest.raises(BadInput, match="does not tell its size"):
        fetched("memory://boasting")


def test_no_room_is_taken_for_a_size_that_is_a_lie(boasting: Boasting) -> None:
    boasting.size = 10**18
    with pytest.raises(BadInput, match="are to be downloaded; make room"):
        fetched("memory://boasting")


def test_what_does_not_fit_is_not_begun(
    output: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    for step in (20, 100):
        save_file({"w": torch.zeros(200_000)}, output / f"checkpoint-{step}" / "model.safetensors")
    with pytest.raises(BadInput, match=r"has 1.0 MB free, and 1.6 MB are to be downloaded; make room"):
        fetched(f"file://{output}")
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_the_doctor_does_not_ask_a_store(tmp_path: Path) -> None:
    params = Params(
        fetch=FetchParams(source="s3://bucket/run"), watch=WatchParams(roots=("s3://bucket/runs",)),
        evaluate=EvaluateParams(tasks=("t",), primary="t/nll"),
    )  # fmt: skip
    assert check_source(params)[0].found == "s3://bucket/run (not asked)"
    assert local_runs(params, tmp_path) == {}
