"""Bad files, bad checkpoints and full disks: one sentence, nothing visible, sources untouched (P1, P2, P5, P6)."""

import json
import math
import os
import pickle
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import INDEX, SINGLE
from tasks.engine import digesting
from tasks.engine.progress import Headway
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import equal, read
from tests.support.tiny import CONFIG, random_tensors, write_checkpoint

AVERAGE = MergeParams(method="average")


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_checkpoint(tmp_path / "training", step) for step in (100, 200, 300)]


def refused(directories: list[Path], out: Path, sentence: str, params: MergeParams = AVERAGE) -> None:
    """Check that a merge is refused in one sentence and leaves nothing behind."""
    with pytest.raises(BadInput, match=sentence) as caught:
        merge_directories(params, directories, out)
    assert "\n" not in str(caught.value)
    assert not list(out.parent.glob(f"*{out.name}*"))


def header(text: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ENTRY = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "model.safetensors: truncated: 0 bytes"),
        (b"\x07", "model.safetensors: truncated: 1 bytes"),
        (header(b"{}", 2**63), "truncated: 10 bytes, but its header alone needs 9223372036854775816"),
        (header(b"{}", 2**64 - 1), "truncated: 10 bytes"),
        (header(b"{}", 100), "truncated: 10 bytes, but its header alone needs 108"),
        (header(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}", data=bytes(4)), "damaged safetensors header .a key occurs twice"),
        (header(b'{"a":' + ENTRY + b"}", data=bytes(3)), "truncated: .* bytes, but its header describes"),
        (header(b'{"a":' + ENTRY + b"}", data=bytes(9)), "has trailing bytes"),
        (header(b'{"a":' + ENTRY.replace(b"[0,4]", b"[0.0,4.0]") + b"}", data=bytes(4)), "damaged safetensors header"),
        (header(b'{"a":' + ENTRY.replace(b"[1]", b"[true]") + b"}", data=bytes(4)), "damaged safetensors header"),
        (header(b"{}"), "holds no tensor"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_at_once(
    three: list[Path], tmp_path: Path, content: bytes, sentence: str
) -> None:
    (three[1] / SINGLE).write_bytes(content)
    begun = time.perf_counter()
    refused(three, tmp_path / "out", sentence)
    assert time.perf_counter() - begun < 1


def test_a_header_of_300_000_tensors_is_refused_at_once(three: list[Path], tmp_path: Path) -> None:
    entries = (
        f'"layer.{i}":{{"dtype":"F16","shape":[1],"data_offsets":[{2 * i},{2 * i + 2}]}}'
        for i in range(300_000)
    )
    (three[1] / SINGLE).write_bytes(header(f"{{{','.join(entries)}}}".encode(), data=bytes(600_000)))
    begun = time.perf_counter()
    refused(three, tmp_path / "out", "300000 tensors in one file are over the limit of 100000")
    assert time.perf_counter() - begun < 1


def index(directory: Path, weight_map: Any) -> None:
    (directory / SINGLE).rename(directory / "model-1.safetensors")
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "name", ["../checkpoint-100/model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""]
)
def test_an_index_that_leaves_the_directory_is_refused(three: list[Path], tmp_path: Path, name: str) -> None:
    index(three[1], {"tall": name})
    refused(three, tmp_path / "out", "names .*, which is not a weight file beside it")


def test_a_missing_shard_is_named(three: list[Path], tmp_path: Path) -> None:
    index(three[1], {"tall": "model-1.safetensors", "more": "model-2.safetensors"})
    refused(three, tmp_path / "out", "model-2.safetensors: missing, but the index names it")


SECRET = {**CONFIG, "secret": "s3cr3t"}


@pytest.mark.parametrize(
    "name", [SINGLE, "config.json", "generation_config.json", "tokenizer.json", "vocab.txt"]
)
def test_a_link_out_of_the_checkpoint_is_refused(three: list[Path], tmp_path: Path, name: str) -> None:
    """P6: nothing outside is read, let alone copied into the merge."""
    elsewhere = tmp_path / "elsewhere" / name
    elsewhere.parent.mkdir()
    shutil.copyfile(three[2] / SINGLE, elsewhere) if name == SINGLE else elsewhere.write_text(
        json.dumps(SECRET)
    )
    (three[2] / name).unlink(missing_ok=True)
    (three[2] / name).symlink_to(elsewhere)
    computed: list[str] = []
    with pytest.raises(BadInput, match=f"{name}: is a link out of its directory") as caught:
        merge_directories(AVERAGE, three, tmp_path / "out", lambda headway: computed.append(headway.last))
    assert "s3cr3t" not in str(caught.value)
    assert not computed
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [SINGLE, "config.json", "generation_config.json", "tokenizer.json"])
def test_a_fifo_is_refused_without_waiting_for_a_writer(three: list[Path], tmp_path: Path, name: str) -> None:
    (three[2] / name).unlink(missing_ok=True)
    os.mkfifo(three[2] / name)
    refused(three, tmp_path / "out", f"{name}: .*not a regular file")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [SINGLE, "config.json", "tokenizer.json"])
def test_a_link_to_a_device_is_refused(three: list[Path], tmp_path: Path, name: str) -> None:
    (three[2] / name).unlink()
    (three[2] / name).symlink_to("/dev/zero")
    refused(three, tmp_path / "out", f"{name}: is a link out of its directory")


class Canary:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch canary-was-here",)


def test_a_pickle_is_never_opened(three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "pytorch_model.bin", "rng_state.pth"):
        (three[1] / name).write_bytes(pickle.dumps(Canary()))
    (three[1] / "modeling.py").write_text("import os; os.system('touch canary-was-here')")
    config = {**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling.Model"}}
    for directory in three:
        (directory / "config.json").write_text(json.dumps(config))
    merge_directories(AVERAGE, three, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "config.json", "manifest.json", "merge.json", SINGLE, "tokenizer.json",
    ]  # fmt: skip
    (three[1] / SINGLE).unlink()
    refused(
        three,
        tmp_path / "again",
        "holds pickled weights only .*, which are not opened; set fetch.convert",
    )
    assert not (tmp_path / "canary-was-here").exists()


def with_nan(directory: Path, name: str = "tall", value: float = math.nan) -> None:
    tensors = load_file(directory / SINGLE)
    tensors[name].view(-1)[3] = value
    save_file(tensors, directory / SINGLE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_stops_the_merge(three: list[Path], tmp_path: Path, value: float) -> None:
    with_nan(three[1], value=value)
    refused(
        three, tmp_path / "out", "checkpoint-200: tensor tall holds NaN or Inf; .* set merge.on_nan to drop"
    )


DROP = MergeParams(method="average", on_nan="drop")


@pytest.mark.parametrize("bad", [(100,), (200,), (300,), (100, 300)])
def test_dropping_a_checkpoint_is_merging_without_it(tmp_path: Path, bad: tuple[int, ...]) -> None:
    four = [write_checkpoint(tmp_path / "training", step) for step in (100, 200, 300, 400)]
    for step in bad:
        with_nan(tmp_path / "training" / f"checkpoint-{step}")
    report = merge_directories(DROP, four, tmp_path / "out")
    good = [directory for directory in four if int(directory.name[-3:]) not in bad]
    merge_directories(DROP, good, tmp_path / "without")
    for name in (SINGLE, "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    for step in bad:
        assert f"checkpoint-{step} is left out: tensor tall holds NaN or Inf" in report.notes
        assert f"checkpoint-{step}" in (tmp_path / "out" / "README.md").read_text()
    assert [source.path for source in report.inputs] == [str(directory) for directory in good]


def test_the_healthy_one_of_two_of_a_name_is_kept(three: list[Path], tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", 300, random_tensors(17))
    with_nan(other)
    report = merge_directories(DROP, [*three, other], tmp_path / "out")
    assert [source.path for source in report.inputs] == [str(directory) for directory in three]


def test_when_too_few_are_left_the_reason_is_said(three: list[Path], tmp_path: Path) -> None:
    with_nan(three[0])
    with_nan(three[1])
    refused(
        three,
        tmp_path / "out",
        "checkpoint-100 is left out: tensor tall holds NaN or Inf; checkpoint-200 is left out: .*; "
        "nothing to merge: 1 checkpoint",
        DROP,
    )


def test_nothing_is_merged_from_nothing(three: list[Path], tmp_path: Path) -> None:
    refused([], tmp_path / "out", "nothing to merge: 0 checkpoints")
    refused(three[:1], tmp_path / "out", "nothing to merge: 1 checkpoint")


def test_the_same_checkpoint_by_two_paths_is_refused(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(three[0])
    refused([*three, tmp_path / "link"], tmp_path / "out", "checkpoint-100.*named twice")


def test_a_copy_of_a_checkpoint_counts_once(three: list[Path], tmp_path: Path) -> None:
    shutil.copytree(three[0], tmp_path / "copy" / "checkpoint-150")
    report = merge_directories(AVERAGE, [*three, tmp_path / "copy" / "checkpoint-150"], tmp_path / "out")
    merge_directories(AVERAGE, three, tmp_path / "without")
    assert equal(read(tmp_path / "out"), read(tmp_path / "without"))
    assert any(
        "checkpoint-150 is left out: it is the same as checkpoint-100" in note for note in report.notes
    )
    assert len(report.inputs) == 3


def test_copies_alone_are_nothing_to_merge(three: list[Path], tmp_path: Path) -> None:
    shutil.copytree(three[0], tmp_path / "copy")
    refused(
        [three[0], tmp_path / "copy"],
        tmp_path / "out",
        "copy is left out: it is the same as checkpoint-100; nothing to merge: 1 checkpoint",
    )


def test_a_source_deleted_before_its_digest_is_taken_is_named(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge whose inputs cannot be told apart any more is not published."""
    deleted, take = threading.Event(), digesting.source_digest

    def digest(source: Any) -> str:
        deleted.wait()
        return take(source)

    def delete(headway: Headway) -> None:
        shutil.rmtree(three[0], ignore_errors=True)
        deleted.set()

    monkeypatch.setattr(digesting, "source_digest", digest)
    with pytest.raises(BadInput, match="checkpoint-100: deleted while it was merged; keep a checkpoint"):
        merge_directories(AVERAGE, three, tmp_path / "out", delete)
    assert not list(tmp_path.glob("*out*"))


def test_a_sum_that_overflows_is_refused_and_a_wider_dtype_helps(tmp_path: Path) -> None:
    """A mask of the least bfloat16 is a buffer of some models; three of them exceed float32."""
    least = torch.finfo(torch.bfloat16).min
    models = [
        write_checkpoint(
            tmp_path / "training",
            step,
            {"mask": torch.full((4,), least).bfloat16(), "w": torch.ones(2) * step},
        )
        for step in (1, 2, 3)
    ]
    refused(models, tmp_path / "out", "tensor mask: the merge overflows BF16; .* wider merge.dtype")
    merge_directories(MergeParams(method="average", dtype="float32"), models, tmp_path / "out")
    assert read(tmp_path / "out")["mask"].tolist() == [least] * 4
