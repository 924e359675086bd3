"""As Prefect tasks, stages are tried again when a network may come back, and only then."""

import pytest
from prefect import flow

from flows import stages
from tasks.base.errors import BadInput, Unavailable


@pytest.mark.parametrize(
    ("error", "network", "tries"),
    [
        (Unavailable("server", "down", "wait"), True, 3),
        (BadInput("key", "wrong", "correct it"), True, 1),
        (Unavailable("server", "down", "wait"), False, 1),
    ],
)
def test_retries(
    prefect: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    network: bool,
    tries: int,
) -> None:
    monkeypatch.setattr(stages, "RETRY_DELAYS_S", [0, 0])
    tried: list[int] = []

    def work(number: int) -> None:
        tried.append(number)
        raise error

    @flow
    def whole() -> None:
        stages.stage(work, "work on {number}", network=network)(7)

    with pytest.raises(type(error), match=str(error)):
        whole()
    assert tried == [7] * tries
    assert "Traceback" not in caplog.text
