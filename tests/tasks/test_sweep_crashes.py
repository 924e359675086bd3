"""A sweep that is killed, or finds no room, leaves whole merges or none, and goes on where it stopped."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.base.publish import is_intact
from tasks.checkpoints.numbers import Numbers
from tasks.engine import output
from tasks.engine.progress import Headway
from tests.support.sweeping import contents, one_by_one, sweep
from tests.support.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
EMA, DECAY = ["merge.method=ema"], {"ema.decay": "0.2,0.5,0.8"}


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    tensors = [{f"layer.{i}.weight": torch.randn(8, 16) for i in range(12)} for _ in range(3)]
    return [write_checkpoint(tmp_path / "training", step, own) for step, own in enumerate(tensors, 1)]


def test_what_is_published_is_left_alone_and_what_is_missing_is_written_again(
    three: list[Path], tmp_path: Path
) -> None:
    sweep(EMA, DECAY, three, tmp_path / "out")
    before = contents(tmp_path / "out")
    places = {path.name: path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    weights = tmp_path / "out" / "ema.decay=0.5" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        BadInput, match=r"ema.decay=0.5/model.safetensors: was changed since Loreline wrote it"
    ):
        sweep(EMA, DECAY, three, tmp_path / "out")
    weights.unlink()
    heard: list[Headway] = []
    sweep(EMA, DECAY, three, tmp_path / "out", on_progress=heard.append)
    assert {headway.total for headway in heard} == {12 * 8 * 16 * 4}
    assert contents(tmp_path / "out") == before
    assert {name for name, inode in places.items() if (tmp_path / "out" / name).stat().st_ino != inode} == {
        "ema.decay=0.5"
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.base import publish
from tasks.merge_checkpoints import sweep_directories
from tasks.recipes.recipe import read_merge_params
from tasks.recipes.sweep import grid
out, moment, swept = sys.argv[1:4]
settings = [own for own in sys.argv[4:] if "=" in own]
inputs = sys.argv[4 + len(settings):]
heard = 0
def kill(*anything):
    global heard; heard += 1
    if heard == 5: os.kill(os.getpid(), signal.SIGKILL)
def publish_one(scratch, directory):
    put(scratch, directory); os.kill(os.getpid(), signal.SIGKILL)
put = publish.put_in_place
if moment == "published": publish.put_in_place, heard = publish_one, 100
variants = grid(read_merge_params(settings), ["merge." + swept], Path(out))
sweep_directories(variants, list(map(Path, inputs)), kill)
"""


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note down the tensor of every block that is written."""
    names, write = list[str](), output.write_numbers

    def note(shard: output.Shard, tensor: str, first_byte: int, numbers: Numbers) -> None:
        names.append(tensor)
        write(shard, tensor, first_byte, numbers)

    monkeypatch.setattr(output, "write_numbers", note)
    return names


@pytest.mark.parametrize("moment", ["computing", "published"])
def test_a_killed_sweep_goes_on_where_it_stopped(
    moment: str, three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(EMA, DECAY, three, tmp_path / "undisturbed")
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(out), moment, "ema.decay=0.2,0.5,0.8", *EMA]
    assert subprocess.run([*command, *map(str, three)], cwd=ROOT, check=False).returncode == -9
    there = {path: path.stat().st_ino for path in out.glob("ema.decay=*")}
    assert len(there) == (moment == "published")
    assert all(is_intact(path) for path in there)
    writes = noted(monkeypatch)
    sweep(EMA, DECAY, three, out)
    assert len(writes) == (3 * (12 - 5) if moment == "computing" else 2 * 12)
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert {path.stat().st_ino for path in there} == set(there.values())
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_variants_that_were_not_there_before_join_those_that_were_killed(
    scope: str, three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes up its own journal: one has five tensors, the other none."""
    settings = ["merge.method=average", "merge.weights=nan", f"merge.nan.per={scope}"]
    out, axes = tmp_path / "out", {"nan.scale": "0.5,1"}
    command = [sys.executable, "-c", KILLED, str(out), "computing", "nan.scale=0.2,0.5", *settings]
    assert subprocess.run([*command, *map(str, three)], cwd=ROOT, check=False).returncode == -9
    writes = noted(monkeypatch)
    sweep(settings, axes, three, out)
    assert len(writes) == 12 + 12 - 5
    one_by_one(settings, axes, three, tmp_path / "single")
    for single in (tmp_path / "single").iterdir():
        assert contents(out / single.name) == contents(single)


def test_room_is_asked_for_all_variants(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 12 * 8 * 16 * 4
    for free in (3 * size - 1, 3 * size):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(free, 0, free)
        )  # type: ignore[misc]
        if free < 3 * size:
            with pytest.raises(BadInput, match="make room"):
                sweep(EMA, DECAY, three, tmp_path / "out")
            assert not list((tmp_path / "out").iterdir())
        else:
            assert len(sweep(EMA, DECAY, three, tmp_path / "out")) == 3


def test_a_variant_that_overflows_stops_the_sweep_with_nothing_half_done(tmp_path: Path) -> None:
    models = [
        write_checkpoint(
            tmp_path, step, {"w": torch.full((2, 2), 20000.0 * step).half()}, metrics={"loss": 1}
        )
        for step in (0, 1, 2)
    ]
    settings = ["merge.method=task_arithmetic", f"merge.base={models[0]}"]
    with pytest.raises(BadInput, match="tensor w: the merge overflows F16; choose a smaller merge.lam"):
        sweep(settings, {"lam": "0.5,10"}, models[1:], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_output_that_is_someone_s_is_refused_before_work(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out" / "ema.decay=0.5").mkdir(parents=True)
    (tmp_path / "out" / "ema.decay=0.5" / "thesis.txt").touch()
    with pytest.raises(BadInput, match="ema.decay=0.5: is not empty"):
        sweep(EMA, DECAY, three, tmp_path / "out")
    with pytest.raises(BadInput, match="is not apart from the input"):
        sweep(EMA, DECAY, three, three[0])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ema.decay=0.5"]
