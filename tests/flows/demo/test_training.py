"""A demo run is what a Trainer leaves behind, the same for a seed, and read by lm-eval as it was trained."""

import json
import logging
import re
import warnings
from pathlib import Path

import pytest

from flows.demo import training
from flows.demo.problems import Problem, Splits, make_splits
from flows.demo.training import finished_run, training_arguments
from tasks.base.errors import BadInput

STEPS = 90


def eight_problems(seed: int, **sizes: int) -> Splits:
    """Make so few that ninety steps teach them all by heart."""
    few = make_splits(seed, train=0, select=8, test=0).select
    return Splits(few, few, few)


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.demo.problems.make_splits", eight_problems)
        patch.setattr("flows.demo.training.PLAIN_EVERY_S", 0.0)
        yield patch


@pytest.fixture(scope="module")
def run(tmp_path_factory, patched) -> Path:
    return finished_run(tmp_path_factory.mktemp("demo") / "run", seed=0, steps=STEPS)


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def test_thirty_checkpoints_evenly_spaced_each_with_its_eval_loss(run):
    steps = [int(path.name.split("-")[1]) for path in checkpoints(run)]
    assert steps == list(range(3, STEPS + 1, 3))
    for step, path in zip(steps, checkpoints(run), strict=True):
        state = json.loads((path / "trainer_state.json").read_text())
        assert state["global_step"] == step
        assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry][-1] == step


def test_a_checkpoint_loads_without_a_warning(run, caplog):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger = logging.getLogger("transformers")  # it does not propagate to where caplog listens
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tokenizer = AutoTokenizer.from_pretrained(checkpoints(run)[-1])
            model = AutoModelForCausalLM.from_pretrained(checkpoints(run)[-1])
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []
    text = "Mia sees 5 books, then 24. Total? 92\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_same_seed_gives_the_same_bytes_and_reports_progress_alone(run, tmp_path, capfd):
    again = finished_run(tmp_path / "again", seed=0, steps=STEPS)
    out, err = capfd.readouterr()
    assert out == ""
    assert all(
        re.fullmatch(r"training: step \d+ of 90(, loss [\d.]+)?, \d+ s left", line)
        for line in err.splitlines()
    )
    assert len(err.splitlines()) == STEPS
    for one, other in zip(checkpoints(run), checkpoints(again), strict=True):
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_lm_eval_sees_the_tokens_of_training_and_its_two_tasks_agree(run):
    """Log-likelihood per item equals the training loss per item; exact_match equals is_greedy."""
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.evaluation.task_files import load_tasks

    model = AutoModelForCausalLM.from_pretrained(checkpoints(run)[-1])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints(run)[-1])
    samples = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
        tasks=[task.config for task in load_tasks(["word_problems", "word_problems_nll"], run / "tasks")],
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )["samples"]
    scored = [sample["resps"][0][0] for sample in samples["word_problems_nll"]]
    right = [bool(sample["exact_match"]) for sample in samples["word_problems"]]
    assert right == [greedy for _, greedy in scored]
    assert sum(right) >= 4

    rows = training.encode_text(
        [Problem(**sample["doc"]) for sample in samples["word_problems_nll"]], tokenizer
    )
    for row, (log_likelihood, _) in zip(rows, scored, strict=True):
        row["labels"][-1] = -100  # lm-eval's target ends with the newline, before <eos>
        asked = sum(label != -100 for label in row["labels"])
        with torch.no_grad():
            assert -model(**training.pad([row])).loss.item() * asked == pytest.approx(
                log_likelihood, abs=1e-4
            )


@pytest.fixture
def trained(patched, monkeypatch) -> list[tuple[object, ...]]:
    """Seeds and steps of the trainings that would have run."""
    calls = []

    def train(directory: Path, splits: Splits, *, seed: int, steps: int, schedule: str) -> None:
        (directory / f"checkpoint-{steps}").mkdir()
        calls.append((seed, steps) if schedule == "constant" else (seed, steps, schedule))

    monkeypatch.setattr(training, "train", train)
    return calls


def test_a_finished_run_is_reused_and_any_other_replaced(tmp_path, trained, monkeypatch):
    finished_run(tmp_path, seed=0, steps=10, schedule="linear")
    for seed, steps in ((0, 10), (0, 10), (1, 10), (1, 20)):
        finished_run(tmp_path, seed=seed, steps=steps)
    assert trained == [(0, 10, "linear"), (0, 10), (1, 10), (1, 20)]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-20"]
    monkeypatch.setattr(training, "recipe_digest", lambda: "changed")
    finished_run(tmp_path, seed=1, steps=20)
    assert trained[4:] == [(1, 20)]


def test_an_unfinished_run_is_trained_anew(tmp_path, trained, monkeypatch):
    def killed(directory: Path, splits: Splits, *, seed: int, steps: int, schedule: str) -> None:
        (directory / "checkpoint-5").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            finished_run(tmp_path, seed=0, steps=10)
    finished_run(tmp_path, seed=0, steps=10)
    assert trained == [(0, 10)]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10"]


@pytest.mark.parametrize("theirs", ["checkpoint-7/model.safetensors", "tasks/merge.py", "demo.json"])
def test_files_that_are_not_the_demos_are_refused_and_stay(tmp_path, trained, theirs):
    path = tmp_path / theirs
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(BadInput, match="directory of its own"):
        finished_run(tmp_path, seed=0, steps=10)
    assert path.read_text() == "mine"
    assert trained == []


def test_training_stops_at_its_last_checkpoint_and_warms_up_within_a_short_run(tmp_path):
    short = training_arguments(tmp_path, seed=0, steps=100)
    assert (short.save_steps, short.eval_steps, short.max_steps, short.warmup_steps) == (3, 3, 99, 10)
    full = training_arguments(tmp_path, seed=0, steps=training.DEFAULT_STEPS)
    assert full.max_steps == training.DEFAULT_STEPS == 30 * full.save_steps


@pytest.mark.parametrize(("schedule", "end"), [("constant", 1.0), ("linear", 0.0), ("cosine", 0.0)])
def test_the_rate_stays_or_decays_to_nothing(tmp_path: Path, schedule: training.Schedule, end: float) -> None:
    import torch
    from transformers import get_scheduler

    arguments = training_arguments(tmp_path, 0, 90, schedule)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rate = get_scheduler(arguments.lr_scheduler_type, optimizer, int(arguments.warmup_steps), 90)
    seen = []
    for _ in range(90):
        optimizer.step()
        rate.step()
        seen.append(rate.get_last_lr()[0])
    assert max(seen) == pytest.approx(1.0)
    assert seen[-1] == pytest.approx(end, abs=1e-9)


@pytest.mark.parametrize(
    "mine", ["checkpoint-9000/optimizer.pt", "data/mine.jsonl", "tasks/mine.yaml", "tasks/sub/x"]
)
def test_what_a_user_put_into_a_demo_is_not_removed(tmp_path: Path, mine: str) -> None:
    for name in ("checkpoint-3/model.safetensors", "data/test.jsonl", "tasks/word_problems.yaml", mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(BadInput, match="not from the demo"):
        training.remove_run(tmp_path)
    assert (tmp_path / mine).read_text() == "x"
    assert (tmp_path / "checkpoint-3" / "model.safetensors").exists()


def test_a_link_in_a_demo_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run" / "tasks").mkdir(parents=True)
    (tmp_path / "run" / "tasks" / "word_problems.yaml").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is a link"):
        training.remove_run(tmp_path / "run")
    assert (tmp_path / "run" / "tasks").exists()
