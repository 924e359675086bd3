"""A merge changes its output and nothing else: not its sources, not what lies beside (P1, P2)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, LorelineError
from tasks.base.publish import MANIFEST, is_intact
from tasks.base.records.merge import MergeReport
from tasks.checkpoints.layout import SINGLE
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import visible
from tests.support.tiny import write_checkpoint

AVERAGE = MergeParams(method="average")


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_checkpoint(tmp_path / "training", step) for step in (100, 200, 300)]


def test_sources_are_never_modified(three: list[Path], tmp_path: Path) -> None:
    """P1, in success and failure: not a byte, not an mtime, not a new file in a training directory."""
    before = visible(tmp_path / "training")
    merge_directories(AVERAGE, three[:2], tmp_path / "out")
    merge_directories(
        MergeParams(method="task_arithmetic", base=str(three[0]), max_shard_size="100B"),
        three[1:],
        tmp_path / "out",
    )
    with pytest.raises(LorelineError):
        merge_directories(MergeParams(method="slerp"), three, tmp_path / "out")
    assert visible(tmp_path / "training") == before


def test_a_merge_of_merges_says_what_it_is(three: list[Path], tmp_path: Path) -> None:
    """The inputs' own manifest and merge.json belong to them."""
    merge_directories(AVERAGE, three[:2], tmp_path / "one")
    merge_directories(AVERAGE, three[1:], tmp_path / "two")
    report = merge_directories(AVERAGE, [tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    assert {file.name for file in report.outputs} == {SINGLE, "config.json", "tokenizer.json"}
    assert MergeReport.read(tmp_path / "both" / "merge.json") == report
    assert is_intact(tmp_path / "both")


def test_what_a_killed_merge_left_does_not_get_into_the_next(three: list[Path], tmp_path: Path) -> None:
    """Between the last shard and the manifest there are a report and a card already."""
    expected = merge_directories(AVERAGE, three, tmp_path / "undisturbed")
    scratches: list[Path] = []
    merge_directories(AVERAGE, three, tmp_path / "out", lambda *_: scratches.extend(tmp_path.glob(".out.*")))
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(tmp_path / "undisturbed", scratches[0])
    (scratches[0] / "model-00001-of-00002.safetensors").write_bytes(b"of another sharding")
    report = merge_directories(AVERAGE, three, tmp_path / "out")
    assert report == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in (tmp_path / "undisturbed").iterdir()
    )


def train_on(out: Path) -> str:
    (out / "checkpoint-500").mkdir()
    (out / "checkpoint-500" / "model.safetensors").write_bytes(b"three days of training")
    return "checkpoint-500"


def take_notes(out: Path) -> str:
    (out / "NOTES.md").write_text("why we like it")
    return "NOTES.md"


def make_room(out: Path) -> str:
    (out / "eval").mkdir()
    return "eval"


def train_in_place(out: Path) -> str:
    weights = (out / SINGLE).read_bytes()
    (out / SINGLE).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    return SINGLE


def lose_the_manifest(out: Path) -> str:
    (out / MANIFEST).unlink()
    return "README.md"


@pytest.mark.parametrize("act", [train_on, take_notes, make_room, train_in_place, lose_the_manifest])
@pytest.mark.parametrize("other_parameters", [False, True])
def test_what_a_user_has_put_into_an_earlier_merge_is_not_lost(
    three: list[Path], tmp_path: Path, act: Callable[[Path], str], other_parameters: bool
) -> None:
    merge_directories(AVERAGE, three, tmp_path / "out")
    name = act(tmp_path / "out")
    before = visible(tmp_path)
    params = MergeParams(method="ema") if other_parameters else AVERAGE
    with pytest.raises(BadInput, match=rf"out/{name}: (is not part of what|was changed since).*move it away"):
        merge_directories(params, three, tmp_path / "out")
    assert visible(tmp_path) == before


def test_what_comes_while_a_merge_runs_is_not_lost(three: list[Path], tmp_path: Path) -> None:
    merge_directories(AVERAGE, three, tmp_path / "out")
    model = (tmp_path / "out" / SINGLE).read_bytes()
    with pytest.raises(BadInput, match=r"NOTES.md: is not part of what Loreline wrote"):
        merge_directories(
            MergeParams(method="ema"), three, tmp_path / "out", lambda *_: take_notes(tmp_path / "out")
        )
    assert (tmp_path / "out" / "NOTES.md").exists()
    assert (tmp_path / "out" / SINGLE).read_bytes() == model


@pytest.mark.parametrize("place", ["", "merged", ".."])
def test_an_output_inside_or_around_a_checkpoint_is_refused(
    three: list[Path], tmp_path: Path, place: str
) -> None:
    """Publishing replaces a directory whole: the source would be gone with it, or change (P1)."""
    merge_directories(AVERAGE, three[:2], tmp_path / "out")
    shutil.move(three[2], tmp_path / "out" / "checkpoint-300")
    inside = [*three[:2], tmp_path / "out" / "checkpoint-300"]
    before = visible(tmp_path / "out")
    with pytest.raises(BadInput, match="name another directory with --out"):
        merge_directories(AVERAGE, inside, inside[2] / place)
    assert visible(tmp_path / "out") == before


def test_the_base_is_not_overwritten(three: list[Path], tmp_path: Path) -> None:
    merge_directories(AVERAGE, three[:2], tmp_path / "base")
    before = visible(tmp_path / "base")
    again = MergeParams(method="task_arithmetic", base=str(tmp_path / "base"))
    with pytest.raises(BadInput, match="name another directory with --out"):
        merge_directories(again, three, tmp_path / "base")
    assert visible(tmp_path / "base") == before


def test_files_of_others_beside_the_output_are_left_alone(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / ".out.swp").write_text("an editor's")
    (tmp_path / ".out.backup").mkdir()
    merge_directories(AVERAGE, three, tmp_path / "out")
    assert (tmp_path / ".out.swp").exists()
    assert (tmp_path / ".out.backup").exists()


def test_a_file_in_place_of_the_parent_is_named(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LorelineError, match="file"):
        merge_directories(AVERAGE, three, tmp_path / "file" / "out")


def test_a_mount_point_is_filled(three: list[Path], small_disk: Path, tmp_path: Path) -> None:
    expected = merge_directories(AVERAGE, three, tmp_path / "undisturbed")
    assert merge_directories(AVERAGE, three, small_disk) == expected
    assert merge_directories(AVERAGE, three[1:], small_disk) != expected
    assert merge_directories(AVERAGE, three, small_disk) == expected
    assert is_intact(small_disk)
    names = {path.name for path in (tmp_path / "undisturbed").iterdir()}
    assert {path.name for path in small_disk.iterdir()} == names


def test_a_link_to_another_disk_stays_a_link(three: list[Path], small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(small_disk / "merges" / "out")
    for inputs in (three[1:], three):
        merge_directories(AVERAGE, inputs, tmp_path / "out")
        assert is_intact(small_disk / "merges" / "out")
    assert (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000 + "b", "nul\0"])
def test_a_name_that_no_disk_takes_is_refused(three: list[Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="cannot be an output .*; name another directory"):
        merge_directories(AVERAGE, three, tmp_path / name)


def test_links_in_a_circle_are_refused(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(BadInput, match="cannot be an output"):
        merge_directories(AVERAGE, three, tmp_path / "a")


@pytest.mark.parametrize("times", ["as they come", "put back"])
def test_weights_that_change_while_they_are_read_stop_the_merge(
    three: list[Path], tmp_path: Path, times: str
) -> None:
    """P2: what was merged is what the digests say."""
    weights, changed = three[0] / SINGLE, list[str]()
    before = weights.stat()

    def overwrite(*_: object) -> None:
        if not changed:
            with weights.open("r+b") as file:
                file.seek(-4, os.SEEK_END)
                file.write(b"\0\0\0\0")
            if times == "put back":
                os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
            changed.append("once")

    with pytest.raises(BadInput, match="was changed while it was read; run again"):
        merge_directories(AVERAGE, three, tmp_path / "out", overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["training"]
    merge_directories(AVERAGE, three, tmp_path / "out")


def test_rotation_and_staging_while_a_merge_reads_do_no_harm(three: list[Path], tmp_path: Path) -> None:
    """Hard links that come and go change a file's ctime, not its content."""
    expected = merge_directories(AVERAGE, three, tmp_path / "undisturbed")
    os.link(three[0] / SINGLE, tmp_path / "staged")
    moved = list[str]()

    def rotate(*_: object) -> None:
        if not moved:
            (tmp_path / "staged").unlink()
            os.link(three[1] / SINGLE, tmp_path / "kept")
            moved.append("once")

    assert merge_directories(AVERAGE, three, tmp_path / "out", rotate) == expected


def test_a_way_that_leads_through_nowhere_is_followed_to_its_end(three: list[Path], tmp_path: Path) -> None:
    report = merge_directories(AVERAGE, three, tmp_path / "nowhere" / ".." / "out")
    assert MergeReport.read(tmp_path / "out" / "merge.json") == report
    assert merge_directories(AVERAGE, three, tmp_path / "nowhere" / ".." / "out") == report


@pytest.mark.parametrize("name", [b"vocab\xff.json", b"\xed\xa0\x80.txt"])
def test_a_file_whose_name_is_no_text_is_refused_before_the_merge(
    three: list[Path], tmp_path: Path, name: bytes
) -> None:
    (three[2] / os.fsdecode(name)).write_text("{}")
    with pytest.raises(BadInput, match="not UTF-8"):
        merge_directories(AVERAGE, three, tmp_path / "out")
