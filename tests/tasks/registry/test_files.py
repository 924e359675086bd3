import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.base.publish import Manifest, publishing
from tasks.registry.files import check_files, digest_of_files, local_directory, store_files, verify_directory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with publishing(tmp_path / "merged", made_from="seed") as out:
        (out / "model.safetensors").write_bytes(b"weights")
        (out / "figures").mkdir()
        (out / "figures" / "gains.png").write_bytes(b"png")
    return tmp_path / "merged"


def place(model: Path, target: Path) -> Manifest:
    manifest = verify_directory(model, remedy="")
    logged: Any = SimpleNamespace(artifact_location=target.as_uri())
    store_files(None, logged, model, manifest, {})  # type: ignore[arg-type]
    return manifest


def test_files_are_shared_not_copied(model: Path, tmp_path: Path) -> None:
    manifest = place(model, tmp_path / "a store" / "artifacts")
    stored = tmp_path / "a store" / "artifacts"
    assert verify_directory(stored, remedy="") == manifest
    assert (stored / "model.safetensors").samefile(model / "model.safetensors")
    assert (stored / "figures" / "gains.png").samefile(model / "figures" / "gains.png")
    assert not (stored / "manifest.json").samefile(model / "manifest.json")


def test_putting_again_changes_nothing(model: Path, tmp_path: Path) -> None:
    place(model, tmp_path / "stored")
    before = (tmp_path / "stored").stat().st_ino
    place(model, tmp_path / "stored")
    assert (tmp_path / "stored").stat().st_ino == before


@pytest.mark.parametrize("damage", ["missing", "changed", "added", "manifest"])
def test_putting_again_repairs_the_store_and_not_through_the_link(
    model: Path, tmp_path: Path, damage: str
) -> None:
    place(model, tmp_path / "stored")
    weights = tmp_path / "stored" / "model.safetensors"
    if damage == "added":
        (tmp_path / "stored" / "modeling.py").write_text("import os")
    elif damage == "manifest":
        (tmp_path / "stored" / "manifest.json").unlink()
    else:
        weights.unlink()
        if damage == "changed":
            weights.write_bytes(b"WEIGHTS")
    manifest = place(model, tmp_path / "stored")
    assert verify_directory(tmp_path / "stored", remedy="") == manifest == verify_directory(model, remedy="")


def test_files_are_copied_to_another_file_system(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_device(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", other_device)
    manifest = place(model, tmp_path / "stored")
    assert verify_directory(tmp_path / "stored", remedy="") == manifest
    assert not (tmp_path / "stored" / "model.safetensors").samefile(model / "model.safetensors")


def test_links_that_dvc_left_are_followed(model: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    weights.rename(tmp_path / "cached")
    weights.symlink_to(tmp_path / "cached")
    place(model, tmp_path / "stored")
    assert not (tmp_path / "stored" / "model.safetensors").is_symlink()
    assert (tmp_path / "stored" / "model.safetensors").read_bytes() == b"weights"


def test_the_first_file_that_differs_is_named(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(BadInput, match=r"merged/model\.safetensors: changed, according to .*; merge again$"):
        verify_directory(model, remedy="merge again")
    (model / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"merged/model\.safetensors: missing"):
        verify_directory(model, remedy="merge again")


def test_an_added_file_is_named(model: Path) -> None:
    (model / "modeling.py").write_text("import os")
    with pytest.raises(BadInput, match=r"merged/modeling\.py: not part of it"):
        verify_directory(model, remedy="merge again")


def test_a_consistent_forgery_is_noticed(model: Path) -> None:
    recorded = digest_of_files(verify_directory(model, remedy=""))
    check_files(model, recorded)
    with publishing(model, made_from="seed") as out:
        (out / "model.safetensors").write_bytes(b"others")
    with pytest.raises(BadInput, match=r"manifest\.json: not the one that was registered"):
        check_files(model, recorded)


def test_only_locations_on_this_machine_are_local() -> None:
    assert local_directory("file:///a%20b/c") == Path("/a b/c")
    assert local_directory("/a/b") == Path("/a/b")
    assert local_directory("mlflow-artifacts:/1/models") is None
    assert local_directory("s3://bucket/x") is None
    assert local_directory("file://[x/y") is None
