"""An error is a subject, a problem and a remedy: every one of them, and nobody takes the sentence apart."""

import ast
import errno
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base.errors import BadInput, LorelineError, Unavailable, brief, plain_lines, without_secrets
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


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bob:{}@db:5432/mlflow",
        "postgresql://bob:a/{}@db/mlflow",
        "postgresql+psycopg2://bob:a?{}@db/mlflow",
        "postgresql://bob:a b {}@db/mlflow",
        "postgresql://bob:a@{}@db/mlflow",
        "https://{}@host/run",
        "https://bob:#{}@host",
        "https://host:5000/run?X-Amz-Signature={}",
        "s3://bucket/run?token={}&other=1",
    ],
)
@pytest.mark.parametrize("text", ["{}", "cannot reach {}: no route", "['{}']", "{{'uri': '{}'}}"])
def test_no_error_shows_a_secret(url: str, text: str) -> None:
    told = text.format(url.format(SECRET))
    error = BadInput(told, told, told)
    assert SECRET not in str(error)
    assert SECRET not in error.told
    assert SECRET not in brief(ValueError(told))


def test_what_the_system_refuses_is_told_in_its_words() -> None:
    assert brief(OSError(errno.ENOSPC, "No space left on device", "/x")) == "No space left on device"
    assert brief(OSError("no number")) == "OSError: no number"


@pytest.mark.parametrize(
    "text",
    ["hf://org/name@abc/checkpoint-1: gone", "http://host:5000/a is refused", "bob@example.org wrote a: b"],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "secret", ["#access_token=S3CRET", ";token=S3CRET", "/a?X-Amz-Signature=S3CRET", ";v=1#S3CRET"]
)
def test_what_follows_an_address_is_no_longer_there(secret: str) -> None:
    for before in ("http://127.0.0.1:9", "s3://bucket/run", "postgresql://host/db"):
        assert "S3CRET" not in without_secrets(f"{before}{secret}: does not answer")
        assert without_secrets(f"{before}: not there; try {before}") == f"{before}: not there; try {before}"
    assert without_secrets("hf://org/name@step#1,v=2") == "hf://org/name@step#1,v=2"


def test_lines_stay_lines_and_nothing_else_controls_the_terminal() -> None:
    assert plain_lines("a\n\x1b[31mb\rc\n\u202ed\udcff") == "a\n\\x1b[31mb\\rc\n\\u202ed\\udcff"
    assert len(plain_lines("x" * 10**6)) == 4999
