"""A source has one spelling, and a run a name."""

from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.sources.addresses import checkpoints_in, name_of, normal_address
from tests.support.tiny import write_checkpoint


@pytest.mark.parametrize(
    "spelt",
    ["runs/demo", "runs/demo/", "./runs//demo", "runs/other/../demo", "{root}/runs/demo", "runs/latest"],
)
def test_a_directory_inside_the_project_is_spelt_relative_to_it(tmp_path: Path, spelt: str) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("demo")
    assert normal_address(spelt.format(root=tmp_path), tmp_path) == "runs/demo"


def test_a_directory_elsewhere_is_spelt_absolute(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    assert (
        normal_address("../training/", root)
        == normal_address(f"{tmp_path}/training", root)
        == f"{tmp_path}/training"
    )
    assert normal_address(f"{tmp_path}/project-2", root) == f"{tmp_path}/project-2"


def test_the_project_may_be_named_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "project" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("project")
    assert (
        normal_address("runs", tmp_path / "link")
        == normal_address(f"{tmp_path}/link/runs", tmp_path / "project")
        == "runs"
    )


@pytest.mark.parametrize(
    "source", ["hf://lab/model", "hf://lab/model@step*", "mlflow:/runs/0af3/checkpoints"]
)
def test_what_is_no_directory_stays_as_it_is(tmp_path: Path, source: str) -> None:
    assert normal_address(source, tmp_path) == normal_address(f"{source}/", tmp_path) == source


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/demo", "demo"),
        ("/data/runs/demo/", "demo"),
        ("runs/demo/../other", "other"),
        ("hf://lab/model", "model"),
        ("hf://lab/model@runs/step*", "model"),
        ("mlflow:/runs/0af3c2b1d4e5f6a7/deep/checkpoints", "0af3c2b1"),
    ],
)
def test_a_run_is_called_by_what_names_it(source: str, name: str) -> None:
    assert name_of(source) == name


def test_the_working_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_of(".") == tmp_path.name


def test_checkpoints_are_listed_by_step(tmp_path: Path) -> None:
    for step in (1000, 20):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-5").touch()
    assert checkpoints_in(str(tmp_path)) == [
        (20, tmp_path / "checkpoint-20"),
        (1000, tmp_path / "checkpoint-1000"),
    ]


def test_a_source_without_checkpoints_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for nothing in ("missing", "file"):
        with pytest.raises(BadInput, match=f"fetch.source: .*{nothing}: no such directory; name a Trainer's"):
            checkpoints_in(str(tmp_path / nothing))
    with pytest.raises(BadInput, match="holds no checkpoint-N directory"):
        checkpoints_in(str(tmp_path))
