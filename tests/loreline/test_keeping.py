"""keep=k: the newest k checkpoints outlive the Trainer's rotation as hard links, and nothing else changes."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from transformers.trainer_utils import get_last_checkpoint

from loreline import MergeAfterTraining
from loreline.keeping import BESIDE, WEIGHTS, kept_directory, link_checkpoint, making, prune
from tasks.checkpoints.layout import READABLE
from tests.support.short_training import tiny_llama, train

pytestmark = pytest.mark.usefixtures("no_server")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def kept(run: Path) -> list[int]:
    return sorted(int(name.removeprefix("checkpoint-")) for name in names(kept_directory(run)))


def test_what_is_kept_is_what_a_merge_reads() -> None:
    assert (WEIGHTS, *BESIDE) == READABLE


def test_five_are_kept_as_links_where_the_trainer_keeps_two(run: Path) -> None:
    seen: dict[int, int] = {}

    class Inodes(MergeAfterTraining):
        def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            saved = run / f"checkpoint-{state.global_step}"
            before = {path: path.stat().st_mtime_ns for path in [saved, *saved.iterdir()]}
            super().on_save(args, state, control, **rest)
            assert before == {path: path.stat().st_mtime_ns for path in [saved, *saved.iterdir()]}
            seen[state.global_step] = (saved / "model.safetensors").stat().st_ino

    train(run, [Inodes(keep=5)], save_total_limit=2, max_steps=21)
    assert names(run) == ["checkpoint-18", "checkpoint-21"]
    assert kept(run) == [9, 12, 15, 18, 21]
    for step in kept(run):
        assert (kept_directory(run) / f"checkpoint-{step}" / "model.safetensors").stat().st_ino == seen[step]
    assert names(kept_directory(run) / "checkpoint-9") == [
        "config.json", "generation_config.json", "model.safetensors", "trainer_state.json",
    ]  # fmt: skip
    assert get_last_checkpoint(str(run)) == str(run / "checkpoint-21")
    assert get_last_checkpoint(str(run.parent)) is None
    assert kept_directory(run).parent == run.parent
    assert kept_directory(run).name.startswith(".")  # no glob of watch.roots takes it for a run


@pytest.mark.parametrize(
    ("resumed_at", "left"),
    [(100, [6, 9, 12]), (6, [3, 6, 9]), (0, [9])],  # nothing abandoned; went back to 6; another training
)
def test_the_newest_of_one_trajectory_are_left(tmp_path: Path, resumed_at: int, left: list[int]) -> None:
    for step in (3, 6, 9, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"mean-{step}").mkdir()
    (tmp_path / "notes").touch()
    prune(tmp_path, 3, resumed_at, {9})
    expected = [f"{kind}-{step}" for kind in ("checkpoint", "mean") for step in left]
    assert names(tmp_path) == sorted([*expected, "notes"])


@pytest.mark.slow
def test_training_that_goes_back_keeps_one_trajectory(run: Path) -> None:
    train(run, [MergeAfterTraining(keep=9)])
    train(run, [MergeAfterTraining(keep=9)], resume=str(run / "checkpoint-6"), max_steps=9)
    assert kept(run) == [3, 6, 9]


@pytest.mark.slow
def test_another_training_in_the_same_place_keeps_its_own_only(run: Path) -> None:
    train(run, [MergeAfterTraining(keep=9)], save_steps=2)
    train(run, [MergeAfterTraining(keep=9)], max_steps=6)
    assert kept(run) == [3, 6]


@pytest.mark.slow
def test_a_training_that_never_saves_removes_nothing(run: Path) -> None:
    train(run, [MergeAfterTraining(keep=9)], max_steps=6)
    train(run, [MergeAfterTraining(keep=9)], max_steps=2, save_strategy="no")
    assert kept(run) == [3, 6]


def test_adapters_are_kept_too(run: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    train(run, [MergeAfterTraining(keep=2)], model, save_total_limit=1)
    assert kept(run) == [9, 12]
    assert "adapter_model.safetensors" in names(kept_directory(run) / "checkpoint-9")


def test_where_links_cannot_be_made_each_checkpoint_is_one_line_and_training_ends(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def across(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    trainer = train(run, [MergeAfterTraining(keep=5)], max_steps=6)
    assert trainer.state.global_step == 6
    assert [record.message for record in caplog.records if "kept" in record.message] == [
        f"{run}: checkpoint-{step} is not kept: [Errno {errno.EXDEV}] Invalid cross-device link"
        for step in (3, 6)
    ]
    assert names(kept_directory(run)) == []


def test_where_no_directory_can_be_made_there_is_one_line_a_save(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept_directory(run).touch()
    train(run, [MergeAfterTraining(keep=5)], max_steps=3)
    assert [record.message for record in caplog.records if "kept" in record.message] == [
        f"{run}: checkpoint-3 is not kept: [Errno {errno.ENOTDIR}] Not a directory: "
        f"'{kept_directory(run) / '.checkpoint-3.making'}'"
    ]


def test_a_checkpoint_of_pickles_is_said_not_to_be_kept(run: Path) -> None:
    (run / "checkpoint-3").mkdir(parents=True)
    (run / "checkpoint-3" / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="checkpoint-3 holds no \\*.safetensors"):
        link_checkpoint(run / "checkpoint-3", kept_directory(run))


def test_killed_at_any_link_there_is_no_checkpoint_until_it_is_whole(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(run, [], max_steps=3)
    link, files = (
        os.link,
        len(names(run / "checkpoint-3")) - 5,
    )  # optimizer, scheduler, rng, scaler, arguments
    for allowed in range(3):
        count = iter(range(allowed))

        def killed(*args: Any, **rest: Any) -> None:
            if next(count, None) is None:  # noqa: B023
                raise KeyboardInterrupt
            link(*args, **rest)

        monkeypatch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            link_checkpoint(run / "checkpoint-3", kept_directory(run))
        assert names(kept_directory(run)) == []
    assert files > 2
    monkeypatch.setattr(os, "link", link)
    link_checkpoint(run / "checkpoint-3", kept_directory(run))
    assert names(kept_directory(run)) == ["checkpoint-3"]


def test_what_a_killed_process_left_is_removed_at_the_next_save(run: Path) -> None:
    (kept_directory(run) / ".checkpoint-1.making").mkdir(parents=True)
    (kept_directory(run) / ".mean-1.gone").mkdir()
    train(run, [MergeAfterTraining(keep=1)], max_steps=3)
    assert names(kept_directory(run)) == ["checkpoint-3"]


def test_an_older_directory_gives_way_whole(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with making(tmp_path / "checkpoint-3") as scratch:
            (scratch / text).touch()
    assert names(tmp_path) == ["checkpoint-3"]
    assert names(tmp_path / "checkpoint-3") == ["new"]


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"keep": 1, "mean": True, "every": 0}, {"mean": True}])
def test_settings_without_sense_are_refused_before_training(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="keep"):
        MergeAfterTraining(**wrong)
