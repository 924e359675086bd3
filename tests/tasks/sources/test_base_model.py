"""The base of a run of adapters is found on this machine, whatever it is called, or one sentence says why not."""

import json
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.model_files import base_directory
from tasks.sources.base_model import find_base
from tests.support.tiny import random_tensors, write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "models", 1, random_tensors(1)).rename(tmp_path / "models" / "base")


@pytest.fixture
def cached(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the base into a Hub's cache, as org/base at a commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--org--base"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots").mkdir()
    return base.rename(repo / "snapshots" / COMMIT)


def adapter(root: Path, step: int, base: str | None, **config: object) -> Path:
    """Write an adapter's configuration: its weights say nothing of the base."""
    directory = root / "run" / f"checkpoint-{step}"
    directory.mkdir(parents=True)
    tree = {"peft_type": "LORA", "base_model_name_or_path": base, **config}
    (directory / "adapter_config.json").write_text(json.dumps(tree))
    return directory


def test_a_run_of_whole_models_has_none(base: Path) -> None:
    assert find_base(None, [base]) is None
    assert find_base("org/ignored", [base]) is None


def test_a_directory_is_known_by_its_files(base: Path, tmp_path: Path) -> None:
    found = find_base(None, [adapter(tmp_path, 1, str(base))])
    assert found is not None
    assert {file.name for file in found.files} >= {"config.json", "model.safetensors"}
    assert base_directory(found) == base
    moved = base.rename(tmp_path / "moved")
    again = find_base(str(moved), [tmp_path / "run" / "checkpoint-1"])
    assert again is not None
    assert again.digest == found.digest
    assert again.address != found.address


def test_it_may_be_relative_to_the_run(base: Path, tmp_path: Path) -> None:
    found = find_base(None, [adapter(tmp_path, 1, "../models/base")])
    assert found is not None
    assert base_directory(found).samefile(base)


def test_inside_the_project_the_address_is_relative(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that records are the same in every clone."""
    monkeypatch.chdir(tmp_path)
    found = find_base(None, [adapter(tmp_path, 1, str(base))])
    assert found is not None
    assert found.address == "models/base"


@pytest.mark.parametrize("named", ["org/base", "org/base@main", f"org/base@{COMMIT}", "hf://org/base"])
def test_a_repository_in_the_cache_is_pinned_to_its_commit(cached: Path, tmp_path: Path, named: str) -> None:
    found = find_base(named, [adapter(tmp_path, 1, "somewhere/else")])
    assert found is not None
    assert found.address == f"hf://org/base@{COMMIT}"
    assert base_directory(found) == cached


def test_adapters_name_a_repository_and_its_revision(cached: Path, tmp_path: Path) -> None:
    (cached.parents[1] / "refs" / "v1").write_text(COMMIT)
    found = find_base(None, [adapter(tmp_path, 1, "org/base", revision="v1")])
    assert found is not None
    assert found.address == f"hf://org/base@{COMMIT}"


def test_two_spellings_of_one_base_are_one(base: Path, tmp_path: Path) -> None:
    adapters = [adapter(tmp_path, 1, str(base)), adapter(tmp_path, 2, f"{base.parent}/./base/")]
    assert find_base(None, adapters) is not None


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        (None, "does not say which model it is an adapter of; set fetch.base"),
        ("org/absent", "org/absent: the base is no directory here, and not in the Hub's "
         "cache; download it with hf download org/absent, or set fetch.base to its directory"),
        ("../../../etc@../../x", "is no directory here, and not in the Hub's cache"),
        ("org/base@v9", "org/base@v9: the base is no directory here"),
    ],
)  # fmt: skip
def test_a_base_that_is_not_here_is_named_with_the_way_out(
    cached: Path, tmp_path: Path, named: str | None, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        find_base(None, [adapter(tmp_path, 1, named)])


def test_adapters_of_two_bases_are_refused_unless_one_is_named(cached: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "models", 2, random_tensors(2))
    adapters = [adapter(tmp_path, 1, "org/base"), adapter(tmp_path, 2, str(other))]
    with pytest.raises(
        BadInput, match=r"checkpoint-2: was trained on .*, but checkpoint-1 on .*set fetch.base"
    ):
        find_base(None, adapters)
    assert find_base("org/base", adapters) is not None


def test_a_quantised_base_is_refused(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    with pytest.raises(
        BadInput, match="base of the adapters is quantised; set fetch.base to the unquantised"
    ):
        find_base(None, [adapter(tmp_path, 1, str(base))])


def test_a_run_of_models_and_adapters_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="base: is a whole model, but checkpoint-1 an adapter"):
        find_base(None, [adapter(tmp_path, 1, str(base)), base])


def test_an_adapter_is_no_base(base: Path, tmp_path: Path) -> None:
    other = adapter(tmp_path, 1, str(base))
    (other / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="is a PEFT adapter, no whole model"):
        find_base(str(other), [adapter(tmp_path, 2, str(base))])
