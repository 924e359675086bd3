"""What a model answered is not asked again, after a kill -9 either, and nothing damaged is believed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.base.directories import state_dir
from tasks.base.errors import LorelineError
from tasks.base.model_files import ModelFiles
from tasks.evaluation.answers import AnswerFile
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.task_files import load_tasks
from tasks.parameters.evaluation import EvaluateParams
from tests.support.measuring import ALL, run
from tests.support.tiny_world import TASKS, rows, write_task

EVALUATE = """
import sys
from pathlib import Path
from tests.support.measuring import run
run(Path(sys.argv[1]), Path(sys.argv[2]), ("long",), "long/nll", batch_size=1)
"""

ROLL = """\
output_type: loglikelihood_rolling
doc_to_target: "{{answer}}"
metric_list: [{metric: word_perplexity}]
"""
KINDS = {"spell": "exact_match", "likely": "nll", "choose": "nll", "roll": "nll"}


def partial_files() -> list[Path]:
    return list((state_dir() / "evaluations" / "partial").glob("*.jsonl"))


def keys(path: Path) -> list[str]:
    """Return the digest of every request that a file has a whole answer of."""
    lines = [line.partition(b" ")[2] for line in path.read_bytes().split(b"\n")]
    return [json.loads(line)[0] for line in lines if line.endswith(b"]")]


class TestKilled:
    @pytest.mark.slow
    def test_no_item_is_answered_twice(self, tiny: Path, folder: Path, tmp_path: Path) -> None:
        """The killed process had no moment to tidy up; the second one asks the rest, and gets the same."""
        count = 1500
        own = [{**row, "question": f"{place} + 5"} for place, row in enumerate(rows(count))]
        (tmp_path / "data" / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
        path = write_task(folder, "long", TASKS["likely"])
        path.write_text(path.read_text().replace("items.jsonl", "long.jsonl"))
        child = subprocess.Popen([sys.executable, "-c", EVALUATE, str(tiny), str(folder)])
        try:
            _wait_for(lambda: any(len(keys(path)) > 50 for path in partial_files()), child)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        (partial,) = partial_files()
        before = keys(partial)
        assert 50 < len(before) < count
        os.link(partial, tmp_path / "answers")  # it is removed at the end
        resumed = run(tiny, folder, ("long",), "long/nll", batch_size=1)["long"]
        after = keys(tmp_path / "answers")
        assert after[: len(before)] == before
        assert len(after) == len(set(after)) == count
        assert not partial_files()
        next((state_dir() / "evaluations").glob("*.json")).unlink()
        assert run(tiny, folder, ("long",), "long/nll", batch_size=1)["long"] == resumed


def _wait_for(there: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestAnswerFile:
    def test_answers_come_back_as_they_were(self, tmp_path: Path) -> None:
        answers = {"a": (-1.0000000000000002, True), "b": -0.1, "c": "text\r\nmore\x85", "d": (1e-300, False)}
        file = AnswerFile(tmp_path / "partial" / "x.jsonl")
        for key, answer in answers.items():
            file.keep(key, answer)
        assert AnswerFile(tmp_path / "partial" / "x.jsonl").known == answers

    @pytest.mark.parametrize("size", range(0, 120, 7))
    def test_a_line_that_was_cut_off_costs_one_answer(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "x.jsonl"
        file = AnswerFile(path)
        for key in "abc":
            file.keep(key, (-1.5, True))
        whole = path.read_bytes()
        path.write_bytes(whole[:size])
        again = AnswerFile(path)
        complete = [key for key, line in zip("abc", _ends(whole), strict=True) if line <= size + 1]
        assert list(again.known) == complete
        again.keep("d", 1.0)
        assert list(AnswerFile(path).known) == [*complete, "d"]

    def test_no_flipped_bit_goes_unseen(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        AnswerFile(path).keep("a", (-1.5, True))
        whole = path.read_bytes()
        for place in range(len(whole)):
            for bit in range(8):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
                assert AnswerFile(path).known in ({}, {"a": (-1.5, True)})

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LorelineError, match=r"file/x.jsonl: cannot be written \(.*\); make room there"):
            AnswerFile(tmp_path / "file" / "x.jsonl")


def _ends(whole: bytes) -> list[int]:
    """Return the place after each of the lines with answers."""
    return [place + 1 for place, byte in enumerate(whole) if byte == 10][1:]


class TestAsking:
    @pytest.mark.parametrize("name", KINDS)
    def test_every_kind_of_request_goes_on_where_it_stopped(
        self, tiny: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_task(folder, "roll", ROLL)
        whole = run(tiny, folder, (name,), f"{name}/{KINDS[name]}")[name]
        next((state_dir() / "evaluations").glob("*.json")).unlink()
        kept: list[str] = []
        keep = AnswerFile.keep

        def interrupted(file: AnswerFile, key: str, answer: object) -> None:
            keep(file, key, answer)
            kept.append(key)
            if len(kept) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(AnswerFile, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, folder, (name,), f"{name}/{KINDS[name]}")
        resumed = run(tiny, folder, (name,), f"{name}/{KINDS[name]}")[name]
        assert len(kept) == len(set(kept)) > 3
        assert resumed.items == whole.items
        for metric, values in whole.values.items():
            assert resumed.values[metric] == pytest.approx(values, abs=1e-5)

    def test_equal_requests_are_asked_once(
        self, tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Twelve items of four different questions."""
        kept: list[object] = []
        monkeypatch.setattr(AnswerFile, "keep", _listing(kept))
        assert len(run(tiny, folder, ("likely",), "likely/nll")["likely"].items) == 12
        assert len(kept) == 4

    def test_answers_drawn_at_random_are_not_kept(
        self, tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept: list[object] = []
        monkeypatch.setattr(AnswerFile, "keep", _listing(kept))
        sampled = {"do_sample": True, "temperature": 5.0}
        assert len(run(tiny, folder, ("spell",), generation=sampled)["spell"].items) == 12
        assert not kept

    def test_items_are_counted_over_the_tasks_up_to_all_of_them(self, tiny: Path, folder: Path) -> None:
        told: list[tuple[int, int]] = []
        params = EvaluateParams(tasks=ALL, primary="likely/nll", device="cpu", batch_size=4, limit=10)
        tasks = load_tasks(ALL, folder)
        evaluate_model(
            lambda: ModelFiles(tiny), "digest", tasks, params, lambda done, total: told.append((done, total))
        )
        done = [each for each, _ in told]
        assert {total for _, total in told} == {30}
        assert done == sorted(done)
        assert {0, 10, 20, 30} <= set(done)


def _listing(kept: list[object]) -> Callable[[AnswerFile, str, object], None]:
    """Return a method that keeps answers as AnswerFile does, and lists them."""
    keep = AnswerFile.keep

    def listed(file: AnswerFile, key: str, answer: object) -> None:
        keep(file, key, answer)
        kept.append(key)

    return listed
