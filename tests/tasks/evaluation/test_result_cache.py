"""A stored result is read back exactly, or not at all."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.base.directories import state_dir
from tasks.base.errors import LorelineError
from tasks.evaluation.result_cache import cache_path, load, store
from tasks.evaluation.results import TaskResult

RESULT = TaskResult(task="t", items=("a", "b"), values={"acc": (0.1, 1.0)}, higher_is_better={"acc": True})


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_numbers_come_back_bit_by_bit(tmp_path, values):
    result = TaskResult(
        task="t",
        items=tuple(map(str, range(len(values)))),
        values={"nll": tuple(values)},
        higher_is_better={"nll": False},
    )
    store(tmp_path / "r.json", result)
    assert load(tmp_path / "r.json") == result


def test_results_outlive_a_run_in_the_state_directory():
    store(cache_path("key"), RESULT)
    assert [path.name for path in (state_dir() / "evaluations").iterdir()] == ["key.json"]
    assert load(cache_path("key")) == RESULT


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_flipped_byte_goes_unseen(tmp_path, data):
    path = tmp_path / "r.json"
    store(path, RESULT)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 6))
    path.write_bytes(content)
    assert load(path) in (None, RESULT)


def test_nothing_is_not_an_error(tmp_path):
    assert load(tmp_path / "none.json") is None


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LorelineError, match=r"file/r.json: cannot be written \(.*\); make room there"):
        store(tmp_path / "file" / "r.json", RESULT)
