"""Who waits for an evaluation reads which model is at work, what it has answered, and how long the rest takes."""

import re
import time
from pathlib import Path

import pytest

from flows import progress
from flows.progress import answer_progress
from tasks.base.model_files import ModelFiles
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.progress import ItemsAnswered
from tasks.evaluation.task_files import load_tasks
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import write_model, write_world


def test_a_line_when_a_turn_comes_and_then_regularly(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also while a batch takes longer than the time between lines: nothing is told meanwhile."""
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.2)
    turn = ItemsAnswered("best (checkpoint-2)", 2, 4)
    with answer_progress() as show:
        show(turn)
        show(turn._replace(done=500, total=1500))  # of an evaluation that was killed
        time.sleep(0.5)
        show(turn._replace(done=600, total=1500))
        time.sleep(0.6)
    first, second, *later = capfd.readouterr().err.splitlines()
    rest = [line for line in later if "500 of" not in line]
    assert first == "evaluate: model 2 of 4, best (checkpoint-2)"
    assert second == "evaluate: model 2 of 4, best (checkpoint-2): 500 of 1500 items"
    assert len(rest) >= 2
    for line in rest:  # 100 items in 0.5 to 1.1 s, 900 are left
        (seconds,) = re.findall(r": 600 of 1500 items, (\d+) s left$", line)
        assert 3 <= int(seconds) <= 15


def test_the_libraries_silence_does_not_silence_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.01)
    model, folder = write_model(tmp_path / "model"), write_world(tmp_path / "world")
    capfd.readouterr()
    params = EvaluateParams(tasks=("likely",), primary="likely/nll", device="cpu", batch_size=1)
    with answer_progress() as show:
        turn = ItemsAnswered("last", 1, 1)
        evaluate_model(
            lambda: ModelFiles(model),
            "digest",
            load_tasks(["likely"], folder),
            params,
            lambda done, total: show(turn._replace(done=done, total=total)) or time.sleep(0.02),
        )
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if not line.startswith("evaluate: model 1 of 1, last")]
    assert any("of 12 items" in line for line in lines)
