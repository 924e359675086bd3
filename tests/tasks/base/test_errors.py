"""An error is a subject, a problem and a remedy: every one of them, and nobody takes the sentence apart."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tests.support.imports import sources

KINDS = {
    "LorelineError",
    "BadInput",
    "Unavailable",
    "Declined",
    "Contended",
    "Superseded",
    "GitRefused",
    "NotConverged",
}


def raised() -> Iterator[tuple[Path, ast.Call]]:
    for path in sources().values():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                yield path, node


@pytest.mark.parametrize("kind", [LorelineError, BadInput, Unavailable])
def test_the_sentence_has_the_three_parts_in_order(kind: type[LorelineError]) -> None:
    error = kind(Path("params.yaml"), "is not there", "write it")
    assert str(error) == "params.yaml: is not there; write it"
    assert (error.subject, error.problem, error.remedy) == ("params.yaml", "is not there", "write it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_whoever_knows_more_of_the_place_says_it_first() -> None:
    inner = BadInput("", "overflows F16", "choose a wider dtype")
    assert str(inner.within("tensor w")) == "tensor w: overflows F16; choose a wider dtype"
    assert str(BadInput("w", "overflows", "widen").within("merge")) == "merge: w: overflows; widen"
    assert type(inner.within("tensor w")) is BadInput


def test_every_error_of_the_project_has_a_problem_and_a_remedy() -> None:
    found = list(raised())
    assert len(found) > 200
    for path, call in found:
        where = f"{path}:{call.lineno}"
        assert len(call.args) == 3, where
        for part in call.args[1:]:
            if isinstance(part, ast.Constant):
                assert isinstance(part.value, str), where
                assert part.value.strip() == part.value != "", where
        if isinstance(remedy := call.args[2], ast.Constant):
            assert not str(remedy.value).endswith("."), where
