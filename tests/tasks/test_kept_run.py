"""What the callback kept in a real training is fetched and merged like any run's own checkpoints."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from loreline import MergeAfterTraining
from loreline.keeping import kept_directory
from tasks.base.errors import BadInput
from tasks.base.records.selection import Selection
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.selection import SelectParams
from tasks.select_checkpoints import select_checkpoints
from tasks.sources.staging import staged
from tests.support.short_training import Record, train


@pytest.fixture(scope="module")
def record() -> Record:
    return Record()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, record: Record) -> Path:
    """Return a run of which the Trainer kept two checkpoints, and the callback five with their means."""
    run = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
        environment.setenv("XDG_CACHE_HOME", str(run.parent))
        callbacks = [record, MergeAfterTraining(keep=5, mean=True)]
        train(run, callbacks, save_total_limit=2, max_steps=17, save_only_model=True)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-15", "checkpoint-17"]
    return run


def merged(run: Path, artifacts: Path, means: bool = False) -> tuple[Selection, dict[str, np.ndarray]]:
    fetch_run(FetchParams(source=str(run), settle=0, means=means), artifacts)
    selection = select_checkpoints(SelectParams(k=9, far="keep"), artifacts)
    merge_checkpoints(MergeParams(method="average"), artifacts)
    return selection, {
        name: tensor.double().numpy()
        for name, tensor in load_file(artifacts / "merged" / "model.safetensors").items()
    }


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, expected[name], 1e-6, 1e-6)


def test_five_are_merged_where_the_trainer_kept_two(run: Path, record: Record, tmp_path: Path) -> None:
    selection, found = merged(run, tmp_path)
    steps = (6, 9, 12, 15, 17)
    assert tuple(checkpoint.step for checkpoint in selection.chosen) == steps
    close(found, {name: np.mean([record.after[step][name] for step in steps], 0) for name in found})


def test_means_give_the_mean_of_every_step_and_meet_the_last_checkpoint(
    run: Path, record: Record, tmp_path: Path
) -> None:
    selection, found = merged(run, tmp_path, means=True)
    assert [(one.name, one.averaged) for one in selection.chosen] == [
        ("mean-6", 3), ("mean-9", 3), ("mean-12", 3), ("mean-15", 3), ("mean-17", 2),
    ]  # fmt: skip
    assert selection.last.name == "checkpoint-17"
    close(found, record.mean(range(4, 18)))
    assert not (tmp_path / "merged" / "mean.json").exists()


def test_staged_files_that_are_lost_come_from_where_they_were_kept(run: Path, tmp_path: Path) -> None:
    fetched = fetch_run(FetchParams(source=str(run), settle=0, means=True), tmp_path)
    for one in (fetched.checkpoints[0], fetched.means[0]):
        place = staged(one, tmp_path)
        (place / "config.json").unlink()
        assert (staged(one, tmp_path) / "config.json").exists()
    assert fetched.checkpoints[0].source == f"{run}/checkpoint-6"


def test_nothing_changes_when_the_trainer_removes_what_is_kept(run: Path, tmp_path: Path) -> None:
    before = fetch_run(FetchParams(source=str(run), settle=0), tmp_path / "before")
    aside = (run / "checkpoint-15").rename(run.parent / "aside")
    try:
        after = fetch_run(FetchParams(source=str(run), settle=0), tmp_path / "after")
    finally:
        aside.rename(run / "checkpoint-15")
    assert after == before


def test_a_run_without_means_says_how_to_get_them(run: Path, tmp_path: Path) -> None:
    kept = kept_directory(run)
    aside = kept.rename(kept.with_name("aside"))
    try:
        with pytest.raises(
            BadInput, match="fetch.means: .*no means over its steps were kept; train with Merge"
        ):
            fetch_run(FetchParams(source=str(run), settle=0, means=True), tmp_path)
    finally:
        aside.rename(kept)


def test_a_checkpoint_without_a_mean_is_left_out_and_says_why(run: Path, tmp_path: Path) -> None:
    lost = kept_directory(run) / "mean-9"
    aside = lost.rename(lost.with_name("aside"))
    try:
        selection, _ = merged(run, tmp_path, means=True)
    finally:
        aside.rename(lost)
    assert [one.step for one in selection.chosen] == [6, 12, 15, 17]
    assert [(left.name, left.reason) for left in selection.left_out] == [
        ("checkpoint-9", "no mean of the steps before it was kept")
    ]
