"""A backend is one file of its folder, named by it: lm-eval's tasks are measured with it as with any other."""

import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tasks.base.errors import BadInput
from tasks.evaluation import backends
from tasks.evaluation.backends import backend_named
from tasks.evaluation.measure import known_results, result_paths
from tasks.evaluation.task_files import check_tasks, load_tasks
from tasks.parameters.evaluation import EvaluateParams
from tests.support.measuring import ALL, run
from tests.support.tiny_world import rows

TABLE = '''
import json

from lm_eval.api.model import LM

from tasks.evaluation.backends import Backend

loaded, freed = [], []


class Answers(LM):
    """Answers from a table, and finds nothing else likely."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def loglikelihood(self, requests):
        pairs = [request.args for request in requests]
        right = [self.table.get(context) == target.strip() for context, target in pairs]
        return [(-0.25, True) if found else (-4.0, False) for found in right]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        return [self.table.get(request.args[0], "") for request in requests]


class FromTable(Backend):
    @staticmethod
    def settings(params):
        return {"table": 1}

    @staticmethod
    def check(files, tasks, params):
        pass

    def __init__(self, files, params):
        self.lm = Answers(json.loads((files.directory / "table.json").read_text()))
        loaded.append(files.directory)

    def answer(self, ask, where):
        return ask(self.lm)

    def free(self):
        freed.append(self.lm)
'''


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(f"{backends.__name__}.{name}", None)
        if hasattr(backends, name):
            delattr(backends, name)


@pytest.fixture
def folder_of_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose files count as if they lay in tasks/evaluation/backends."""
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(own)])
    return own


@pytest.fixture
def table(folder_of_backends: Path) -> Iterator[ModuleType]:
    (folder_of_backends / "table.py").write_text(TABLE)
    yield sys.modules[backend_named("table").__module__]
    forget("table")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a model that knows half of the questions, and that no library could load."""
    directory = tmp_path / "model"
    directory.mkdir()
    answers = {f"{row['question']}:": row["answer"] for row in rows(6)}
    (directory / "table.json").write_text(json.dumps(answers))
    return directory


def test_one_file_is_enough(table: ModuleType, model: Path, folder: Path) -> None:
    results = run(model, folder, backend="table")
    known = (1.0,) * 6 + (0.0,) * 6
    assert list(results) == list(ALL)
    assert results["spell"].values == {"exact_match": known}
    assert results["likely"].values == {"acc": known, "nll": (0.25,) * 6 + (4.0,) * 6}
    assert results["choose"].values["nll"] == (0.25,) * 6 + (4.0,) * 6


def test_a_model_is_loaded_once_and_freed_once(table: ModuleType, model: Path, folder: Path) -> None:
    first = run(model, folder, backend="table")
    assert (table.loaded, len(table.freed)) == ([model], 1)
    assert run(model, folder, backend="table") == first
    assert (table.loaded, len(table.freed)) == ([model], 1)


def test_a_failure_frees_the_model_too(
    table: ModuleType, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table.FromTable, "answer", lambda *_: 1 / 0)
    with pytest.raises(Exception, match=r"model on spell: lm-eval failed \(ZeroDivisionError"):
        run(model, folder, backend="table")
    assert len(table.freed) == 1


def test_backends_do_not_share_results(folder_of_backends: Path, model: Path, folder: Path) -> None:
    """Even if they forget to say in their settings who they are."""
    for name in ("one", "two"):
        (folder_of_backends / f"{name}.py").write_text(TABLE)
    asked = {name: params(folder, backend=name) for name in ("one", "two")}
    specs = load_tasks(ALL, folder)
    assert not set(result_paths("digest", specs, asked["one"]).values()) & set(
        result_paths("digest", specs, asked["two"]).values()
    )
    run(model, folder, backend="one")
    one = asked["one"].model_copy(update={"batch_size": 4})
    assert known_results("digest", specs, one) is not None
    assert known_results("digest", specs, one.model_copy(update={"backend": "two"})) is None
    forget("one", "two")


@pytest.mark.parametrize("name", ["vllm", "HF", "", "../hf", "hf.py", "__init__"])
def test_an_unknown_backend_is_refused_with_those_that_there_are(folder: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"evaluate.backend: there is no backend .*; take one of hf$"):
        check_tasks(params(folder, backend=name))


def test_a_new_file_is_among_those_that_there_are(table: ModuleType, folder: Path) -> None:
    with pytest.raises(BadInput, match=r"; take one of hf, table$"):
        check_tasks(params(folder, backend="vllm"))


def test_to_look_a_backend_up_loads_no_library() -> None:
    """Names are checked within seconds, and when every result is kept no model is loaded."""
    names = [module.name for module in pkgutil.iter_modules(backends.__path__)]
    heavy = {"torch", "transformers", "lm_eval"}
    code = f"""
import sys
from tasks.evaluation.backends import backend_named
for name in {names}:
    backend_named(name)
assert not {heavy} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])


def params(folder: Path, **chosen: object) -> EvaluateParams:
    given = {"tasks": ALL, "primary": "likely/nll", "include_path": str(folder), "device": "cpu", **chosen}
    return EvaluateParams.model_validate(given)
