"""A journal believes exactly what the weight files still hold, and hashes them whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.measures import TensorMeasures, WeightsUsed
from tasks.engine.journal import JOURNAL, Journal
from tasks.engine.shards import Stored, open_shards, write_numbers

SPEC = {name: Stored("F32", (5,)) for name in "abcdef"} | {"g": Stored("F32", (0,)), "h": Stored("F32", (2,))}
NAMES = list(SPEC)
LIMIT = 45
"""Two tensors a file."""


def merge(directory: Path, until: int = len(SPEC), wrong: float = 0.0) -> tuple[int, dict[Path, str] | None]:
    """Write tensors as the executor does, up to a point; return how many were believed, and the digests."""
    with open_shards(directory, SPEC, LIMIT) as shards:
        journal = Journal(directory, shards, SPEC)
        places = {name: shard for shard in shards for name in shard.offsets}
        believed = len(journal.finished)
        assert list(journal.finished) == NAMES[:believed]
        for i, name in list(enumerate(NAMES))[believed:until]:
            write_numbers(places[name], name, 0, np.full(SPEC[name].shape, i + wrong, np.float32))
            journal.finish(name, measures(i))
        assert all(journal.finished[name] == measures(i) for i, name in enumerate(NAMES[:until]))
        return believed, journal.close() if until == len(SPEC) else None


def measures(i: int) -> TensorMeasures:
    return TensorMeasures(method=WeightsUsed(weights=(0.1, i)))


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "undisturbed").mkdir()
    merge(tmp_path / "undisturbed")
    return digests(tmp_path / "undisturbed")


def digests(directory: Path) -> dict[str, str]:
    return {path.name: blake3(path.read_bytes()).hexdigest() for path in directory.glob("*.safetensors")}


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    _, found = merge(tmp_path)
    assert found is not None
    assert {path.name: digest for path, digest in found.items()} == digests(tmp_path)
    assert len(found) == 4
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize("stopped", range(len(SPEC)))
def test_what_was_finished_is_believed(tmp_path: Path, undisturbed: dict[str, str], stopped: int) -> None:
    merge(tmp_path, until=stopped)
    believed, found = merge(tmp_path)
    assert believed == stopped
    assert found is not None
    assert {path.name: digest for path, digest in found.items()} == undisturbed == digests(tmp_path)


@given(kept=st.integers(0, 2000))
@settings(max_examples=60)
def test_a_journal_cut_anywhere_is_believed_up_to_its_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, kept: int
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    merge(directory, until=6)
    whole = (directory / JOURNAL).read_bytes()
    (directory / JOURNAL).write_bytes(whole[:kept])
    lines = whole[:kept].count(b"\n") + (whole[kept : kept + 1] == b"\n")
    believed, found = merge(directory)
    assert believed == lines
    assert found is not None
    assert {path.name: digest for path, digest in found.items()} == digests(directory)


@given(tensor=st.integers(0, 5), byte=st.integers(0, 19), bit=st.integers(0, 7))
@settings(max_examples=40)
def test_from_a_flipped_bit_on_nothing_is_believed(
    tmp_path_factory: pytest.TempPathFactory, tensor: int, byte: int, bit: int
) -> None:
    directory = tmp_path_factory.mktemp("flip")
    merge(directory, until=6)
    with open_shards(directory, SPEC, LIMIT) as shards:
        shard = next(shard for shard in shards if NAMES[tensor] in shard.offsets)
        data = bytearray(shard.path.read_bytes())
        data[shard.offsets[NAMES[tensor]] + byte] ^= 1 << bit
        shard.path.write_bytes(data)
    believed, found = merge(directory)
    assert believed == tensor
    assert found is not None
    assert {path.name: digest for path, digest in found.items()} == digests(directory)
    values = b"".join(path.read_bytes()[-4:] for path in sorted(directory.glob("*.safetensors")))
    assert np.frombuffer(values, np.float32).tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (2, {"blake3": "0" * 64}),
        (2, {"blake3": None}),
        (2, {"tensor": "d"}),
        (2, {"tensor": "zzz"}),
        (0, {"more": 1}),
    ],
)
def test_a_line_that_does_not_fit_ends_belief(tmp_path: Path, line: int, change: dict[str, object]) -> None:
    merge(tmp_path, until=5)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **change})
    (tmp_path / JOURNAL).write_text("\n".join(lines) + "\n")
    assert merge(tmp_path)[0] == line


@pytest.mark.parametrize("text", ["null", "[]", "3", '"a"', '["a", "b", {}]', "\x00\xff", "[" * 100_000])
def test_a_line_that_is_no_entry_ends_belief(tmp_path: Path, text: str) -> None:
    merge(tmp_path, until=3)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    lines[1] = text
    (tmp_path / JOURNAL).write_text("\n".join(lines) + "\n")
    assert merge(tmp_path)[0] == 1


def test_a_line_of_an_earlier_release_ends_belief(tmp_path: Path) -> None:
    """It held what was measured without saying of which kind."""
    merge(tmp_path, until=3)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    entry = json.loads(lines[1])
    entry["facts"] = entry.pop("measures")["method"]
    (tmp_path / JOURNAL).write_text("\n".join([lines[0], json.dumps(entry), lines[2]]) + "\n")
    assert merge(tmp_path)[0] == 1


def test_lines_in_another_order_are_not_believed(tmp_path: Path) -> None:
    merge(tmp_path, until=4)
    first, second, *others = (tmp_path / JOURNAL).read_text().splitlines()
    (tmp_path / JOURNAL).write_text("\n".join([second, first, *others]) + "\n")
    assert merge(tmp_path)[0] == 0


def test_a_lost_weight_file_is_written_again(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    merge(tmp_path, until=6)
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    assert merge(tmp_path)[0] == 2
    assert digests(tmp_path) == undisturbed


def test_tensors_of_other_values_are_not_mixed_in_unseen(tmp_path: Path) -> None:
    """The digest that is returned is that of the file, whatever lay in it before."""
    merge(tmp_path, until=3, wrong=0.5)
    (tmp_path / JOURNAL).unlink()
    assert merge(tmp_path)[0] == 0
    _, found = merge(tmp_path)
    assert found is not None
    assert {path.name: digest for path, digest in found.items()} == digests(tmp_path)
