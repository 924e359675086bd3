"""A checkpoint is taken only when it is whole: written to its end, or uploaded with all that belongs to it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.sources.readiness import NotReady, check_ready, complete_upload
from tasks.sources.source import FetchedCheckpoint, FetchedRun
from tests.support.adapter_runs import write_adapter_run


def fetched(directory: Path, step: int) -> FetchedCheckpoint:
    return FetchedCheckpoint(step, directory.name, directory, f"shop://run/{directory.name}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "has no trainer_state.json: still being written"),
        ("{", "trainer_state.json cannot be read yet"),
        ("[]", "trainer_state.json cannot be read yet"),
        ("{}", "trainer_state.json cannot be read yet"),
        ('{"global_step": 9}', "trainer_state.json is of step 9"),
    ],
)
def test_a_checkpoint_is_ready_once_its_state_is_of_its_step(
    make_checkpoint: Callable[..., Path], text: str | None, reason: str
) -> None:
    directory = make_checkpoint(10)
    check_ready(directory, 10)
    state = directory / "trainer_state.json"
    state.unlink() if text is None else state.write_text(text)
    with pytest.raises(NotReady, match=reason):
        check_ready(directory, 10)


def test_an_upload_may_lack_its_state_and_nothing_else(make_checkpoint: Callable[..., Path]) -> None:
    first, second = make_checkpoint(10), make_checkpoint(20)
    (first / "trainer_state.json").unlink()
    found = [fetched(first, 10), fetched(second, 20)]
    assert complete_upload(found) == FetchedRun(found, [])
    with pytest.raises(
        BadInput, match=r"^shop://run/checkpoint-20: .* is of step 20; its upload is incomplete"
    ):
        complete_upload([fetched(second, 30)])
    (second / "config.json").unlink()
    with pytest.raises(BadInput, match="checkpoint-20: has no config.json"):
        complete_upload(found)
    os.truncate(first / "model.safetensors", 100)
    with pytest.raises(BadInput, match=r"checkpoint-10/model\.safetensors: truncated"):
        complete_upload(found)


def test_an_adapter_is_ready_once_it_is_whole(tmp_path: Path) -> None:
    directory = write_adapter_run(tmp_path, steps=(1,)) / "checkpoint-1"
    check_ready(directory, 1)
    weights = directory / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(BadInput, match="adapter_model.safetensors"):
        check_ready(directory, 1)
    weights.unlink()
    with pytest.raises(NotReady, match="adapter_model.safetensors is missing"):
        check_ready(directory, 1)
    (directory / "adapter_model.bin").write_bytes(whole)
    with pytest.raises(BadInput, match="is a pickle, which is never opened; save it again with safe_serial"):
        check_ready(directory, 1)


def test_an_adapter_that_cannot_be_merged_is_refused_where_it_is_fetched(tmp_path: Path) -> None:
    directory = write_adapter_run(tmp_path, steps=(1,), use_qalora=True) / "checkpoint-1"
    with pytest.raises(BadInput, match="use_qalora is more than low-rank factors; .* merge_and_unload first"):
        check_ready(directory, 1)
