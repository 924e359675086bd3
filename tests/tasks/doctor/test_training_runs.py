"""Whether a run kept enough checkpoints is told from what the Trainer left, and nothing is opened that could run."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.doctor.training_runs import check_training_runs, judge_run, saved_steps
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params
from tasks.parameters.selection import SelectParams
from tasks.parameters.watch import WatchParams
from tasks.trajectory.trainer_state import read_state

FIVE = SelectParams(k=5)


class Line(torch.nn.Module):
    """The least that a Trainer trains."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.line(x).squeeze(-1) - labels) ** 2).mean()}


@pytest.mark.parametrize(("settings", "left", "saved"), [
    ({"save_steps": 2, "save_total_limit": 2}, 2, 6),
    ({"save_steps": 5, "save_total_limit": 2}, 2, 3),  # 5, 10 and the end
    ({"save_strategy": "epoch", "save_total_limit": 2}, 2, 3),
    ({"save_steps": 2}, 6, 6),
    ({"save_steps": 500}, 1, 1),
])  # fmt: skip
def test_what_a_real_trainer_saved_is_told_from_what_is_left(
    tmp_path: Path, settings: dict[str, object], left: int, saved: int
) -> None:
    from transformers import Trainer, TrainingArguments

    rows = [{"x": torch.tensor([i, 1.0]), "labels": torch.tensor(2.0 * i)} for i in range(4)]
    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=3, per_device_train_batch_size=1, use_cpu=True, report_to="none",
        disable_tqdm=True, logging_strategy="no", save_only_model=True, **settings,
    )  # fmt: skip
    Trainer(Line(), arguments, train_dataset=rows).train()
    there = numbered_checkpoints(tmp_path)
    assert len(there) == left
    steps, state = [step for step, _ in there], read_state(there[-1][1])
    assert state is not None
    assert len(saved_steps(steps, state)) == saved
    assert (judge_run("run", steps, state, FIVE) is None) == (left > 2)


@pytest.mark.parametrize(("steps", "state", "level", "told"), [
    ([1900, 2000], {"max_steps": 2000, "save_steps": 100}, "warning", "2 checkpoints are left of about 20 that were saved; last_k merges 5"),
    ([2000], {"max_steps": 2000, "save_steps": 100}, "problem", "1 checkpoint is left of about 20"),
    ([333], {"max_steps": 333, "save_steps": 500}, "problem", "1 checkpoint is left, and a merge needs two"),
])  # fmt: skip
def test_too_few_left_is_said_with_numbers_and_a_remedy(
    steps: Sequence[int], state: dict[str, int], level: str, told: str
) -> None:
    finding = judge_run("runs/x", steps, state, FIVE)
    assert finding is not None
    assert finding.subject == "runs/x"
    assert finding.level == level
    assert finding.found.startswith(told)
    assert "save_total_limit" in finding.remedy


@pytest.mark.parametrize(("steps", "state"), [
    ([100, 200, 300, 400, 500], {"max_steps": 500, "save_steps": 100}),  # all are there
    ([200, 300], {"max_steps": 2000, "save_steps": 100}),  # not ended yet
    ([250, 500], {"max_steps": 500, "save_steps": 250}),  # it saved no more than these
    ([200, 500, 900], {"max_steps": 900, "save_steps": 500}),  # save_strategy="best": no telling
])  # fmt: skip
def test_nothing_is_claimed_that_what_is_left_does_not_show(
    steps: Sequence[int], state: dict[str, int]
) -> None:
    assert judge_run("runs/x", steps, state, FIVE) is None


def test_runs_of_every_local_root_are_looked_at_once(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    directory = make_checkpoint(900)
    state = {"global_step": 900, "max_steps": 900, "save_steps": 300}
    (directory / "trainer_state.json").write_text(json.dumps(state))
    (directory / "training_args.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    params = Params(
        fetch=FetchParams(source="training"), evaluate=EvaluateParams(tasks=("t",), primary="t/nll"),
        watch=WatchParams(roots=("train*", "hf://nobody/nothing", "mlflow:/experiments/none")),
    )  # fmt: skip
    summary, run = check_training_runs(params, tmp_path)
    assert summary.found == "0 with enough checkpoints to merge"
    assert run.found == "1 checkpoint is left of about 3 that were saved; last_k merges 8"
    assert run.remedy == (
        "in TrainingArguments set save_total_limit=8 or more, or leave it out, or keep them with "
        "MergeAfterTraining(keep=8)"
    )


def test_one_checkpoint_is_enough_of_each_of_several_runs(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    state = {"global_step": 900, "max_steps": 900, "save_steps": 300}
    (make_checkpoint(900) / "trainer_state.json").write_text(json.dumps(state))
    shutil.copytree(tmp_path / "training", tmp_path / "other")
    params = Params(
        fetch=FetchParams(source=("training", "other")), evaluate=EvaluateParams(tasks=("t",), primary="t/nll"),
        select=SelectParams(k=1),
    )  # fmt: skip
    (summary,) = check_training_runs(params, tmp_path)
    assert summary.found == "2 with enough checkpoints to merge"
