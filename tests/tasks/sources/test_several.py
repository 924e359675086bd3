"""Several runs: each has a name of its own, they are looked at together, and what is one run is not two."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.records.record import FileDigest
from tasks.base.records.training_run import Checkpoint, LeftOut, TrainingRun
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import observe
from tasks.sources.run_status import RunStatus, joint_status
from tasks.sources.several import joined, named_after, names_of, observe_runs
from tasks.sources.source import FetchedCheckpoint, FetchedRun
from tests.support.ended_runs import finished

REGISTRY = RegisterParams(name="demo")


def run(name: str, *weights: str) -> TrainingRun:
    checkpoints = tuple(
        Checkpoint(
            name=f"{name}/checkpoint-{step}", step=step, source=f"runs/{name}", metrics={}, run=name,
            files=(FileDigest(name="model.safetensors", size=1, sha256=own),),
        )
        for step, own in enumerate(weights)
    )  # fmt: skip
    left_out = (LeftOut(name=f"{name}/checkpoint-99", reason="is still changing"),)
    return TrainingRun(name=name, source=f"runs/{name}", checkpoints=checkpoints, left_out=left_out)


@pytest.mark.parametrize(
    ("addresses", "names"),
    [
        (["runs/seed0", "runs/seed1/"], ["seed0", "seed1"]),
        (["seed0/out", "seed1/out"], ["out-1", "out-2"]),
        (["out-1", "a/out", "b/out"], ["out-1-1", "out-2", "out-3"]),
        (["hf://org/a", "mlflow:/runs/0123456789ab/x", "s3://bucket/b"], ["a", "01234567", "b"]),
        (["hf://org/a@one*", "hf://org/a@two*"], ["a-1", "a-2"]),
        (["runs/alone"], ["alone"]),
    ],
)
def test_every_run_has_a_name_of_its_own(addresses: Sequence[str], names: list[str]) -> None:
    assert names_of(addresses) == names


@pytest.mark.parametrize(
    "addresses", [["a", "a/"], ["a", "b/../a"], ["hf://org/a", "b", "hf://org/a/"], ["linked", "a"]]
)
def test_one_run_by_two_addresses_is_refused(
    addresses: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "linked").symlink_to("a")
    with pytest.raises(BadInput, match="fetch.source: .* is the same run as .*; list different runs"):
        names_of(addresses)


def test_checkpoints_means_and_what_is_left_out_are_named_after_their_run(tmp_path: Path) -> None:
    found = FetchedRun(
        [FetchedCheckpoint(3, "checkpoint-3", tmp_path, "a/checkpoint-3")],
        [LeftOut(name="checkpoint-6", reason="is still changing")],
        [FetchedCheckpoint(3, "mean-3", tmp_path, "a/mean-3", averaged=3)],
    )
    named = named_after("a", found)
    assert [own.name for own in (*named.checkpoints, *named.left_out, *named.means)] == [
        "a/checkpoint-3", "a/checkpoint-6", "a/mean-3",
    ]  # fmt: skip
    assert {own.run for own in (*named.checkpoints, *named.means)} == {"a"}


def test_what_is_joined_can_be_taken_apart_again(tmp_path: Path) -> None:
    runs = [run("a", "1", "2"), run("b", "3"), run("c", "4", "5", "6"), run("d", "7")]
    together = joined(runs)
    assert together.runs == tuple(runs)
    assert together.name == "a+3-more"
    assert joined(runs[:3]).name == "a+b+c"
    assert joined(runs[:1]) == runs[0]
    together.write(tmp_path / "run.json")
    assert TrainingRun.read(tmp_path / "run.json") == together


def test_which_checkpoints_are_of_one_run_is_part_of_the_identity() -> None:
    one, other = joined([run("a", "1", "2"), run("b", "3")]), joined([run("a", "1"), run("b", "2", "3")])
    assert one.digest != other.digest
    assert one.digest == joined([run("x", "1", "2"), run("y", "3")]).digest  # wherever they lie


def test_a_copy_of_a_run_is_refused() -> None:
    with pytest.raises(BadInput, match="runs/a holds the same checkpoints as runs/b"):
        joined([run("a", "1", "2"), run("c", "1"), run("b", "1", "2")])


def test_runs_have_ended_when_all_have() -> None:
    ended, not_ended = RunStatus("1", True, "says so"), RunStatus("2", False, "still training")
    assert joint_status({"a": not_ended}) == not_ended
    both = joint_status({"a": ended, "b": not_ended})
    assert (both.ended, both.reason) == (False, "b: still training")
    assert joint_status({"a": ended, "b": ended}).ended
    assert both.digest != joint_status({"a": not_ended, "b": ended}).digest


def test_a_look_at_runs_is_one_at_each(tmp_path: Path) -> None:
    places = [str(finished(tmp_path / name, 3, 6)) for name in "ab"]
    seen = observe_runs(FetchParams(source=tuple(places)), 60, REGISTRY)
    assert seen.ended
    assert observe_runs(FetchParams(source=places[0]), 60, REGISTRY) == observe(places[0], 60, REGISTRY)
    finished(tmp_path / "b", 9)
    assert observe_runs(FetchParams(source=tuple(places)), 60, REGISTRY).digest != seen.digest
