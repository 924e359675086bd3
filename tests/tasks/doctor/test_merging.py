"""The doctor plans a merge of every training run here, and says what the merge would refuse."""

from pathlib import Path

import torch

from tasks.doctor.finding import Finding
from tasks.doctor.merging import check_merging
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params
from tests.support.adapter_runs import write_adapter_run
from tests.support.pickled_states import without_weights, write_bin
from tests.support.tiny import random_tensors, write_checkpoint


def look(root: Path, convert: bool = False, **merge: object) -> list[Finding]:
    sections = {
        "fetch": FetchParams(source="none", convert=convert),
        "merge": merge,
        "evaluate": {"tasks": ["t"], "primary": "t/nll"},
        "watch": {"roots": ["runs/*"]},
    }
    return check_merging(Params.model_validate(sections), root)


def write_run(root: Path, name: str, *models: dict[str, torch.Tensor]) -> None:
    for step, tensors in enumerate(models, 1):
        write_checkpoint(root / "runs" / name, step, tensors, metrics={"eval_loss": 1.0})


def test_a_run_is_planned_and_timed(tmp_path: Path) -> None:
    write_run(tmp_path, "a", *map(random_tensors, range(3)))
    ((area, subject, found, level, _),) = look(tmp_path, method="lore")
    assert (area, subject, level) == ("Training runs", "merge", "ok")
    assert found.startswith("lore of runs/a's newest 3 checkpoints takes about ")


def test_a_method_that_streams_reads(tmp_path: Path) -> None:
    write_run(tmp_path, "a", *map(random_tensors, range(3)))
    (finding,) = look(tmp_path, method="average")
    assert "GB a pass" in finding.found


def test_what_a_merge_would_refuse_is_a_problem_of_that_run(tmp_path: Path) -> None:
    write_run(tmp_path, "a", random_tensors(0), {**random_tensors(1), "odd": torch.ones(3)})
    write_run(tmp_path, "b", *map(random_tensors, range(3)))
    refused, planned = look(tmp_path)
    assert (refused.level, planned.level) == ("problem", "ok")
    assert "runs/a" in refused.found
    assert "odd" in refused.found
    assert refused.remedy
    assert "runs/b" in planned.found


def test_a_run_in_pickles_is_a_problem_unless_fetch_converts_it(tmp_path: Path) -> None:
    for step in (1, 2):
        write_bin(without_weights(tmp_path / "runs" / "a", step), random_tensors(step))
    (refused,) = look(tmp_path)
    assert refused.level == "problem"
    assert "which fetch will refuse" in refused.found
    assert "fetch.convert" in refused.remedy
    (told,) = look(tmp_path, convert=True)
    assert (told.level, told.found) == (
        "ok", "runs/a: holds pytorch_model*.bin, which fetch will convert",
    )  # fmt: skip


def test_what_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "a", *map(random_tensors, range(3)))
    (tmp_path / "runs" / "a" / "checkpoint-3" / "trainer_state.json").unlink()
    (finding,) = look(tmp_path)
    assert "newest 2 checkpoints" in finding.found
    (tmp_path / "runs" / "a" / "checkpoint-2" / "trainer_state.json").unlink()
    assert look(tmp_path) == []


def test_a_run_of_adapters_is_planned_as_the_stages_would(tmp_path: Path) -> None:
    write_adapter_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "run").rename(tmp_path / "runs" / "lora")
    (finding,) = look(tmp_path, method="average")
    assert finding.found.startswith("average of runs/lora's newest 3 checkpoints reads ")
    (finding,) = look(tmp_path, method="lore")
    assert finding.level == "ok"
    assert finding.found.startswith("lore of runs/lora's newest 3 checkpoints takes about ")
    (refused,) = look(tmp_path, method="ties")
    assert (refused.level, refused.remedy) == (
        "problem", "set merge.full to merge these adapters into a full model",
    )  # fmt: skip
    (finding,) = look(tmp_path, method="ties", full=True)
    assert finding.level == "ok"


def test_adapters_whose_base_is_not_here_are_a_problem(tmp_path: Path) -> None:
    write_adapter_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "run").rename(tmp_path / "runs" / "lora")
    (tmp_path / "runs" / "a" / "base").rename(tmp_path / "moved")
    (refused,) = look(tmp_path, method="average")
    assert refused.level == "problem"
    assert "the base is no directory here" in refused.found
    assert "set fetch.base to its directory" in refused.remedy
