"""The page over time shows every night that the registry has evidence of, and cannot be broken by names."""

from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from tasks.base.errors import BadInput
from tasks.base.records import Interval
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.history import merged_runs
from tasks.registry.looks import Asked, begin_look, write_look
from tasks.registry.store import connect
from tasks.reporting.history_page import write_history_page


@pytest.fixture
def page(store: RegisterParams, make_artifacts: Any, tmp_path: Path) -> str:
    merges = [
        register_model(
            store, make_artifacts(tmp_path / f"run{seed}", seed=seed, gain=seed / 10, decision=decision)
        ).digest
        for seed, decision in enumerate(("KEEP", "INCONCLUSIVE", "PROMOTE"))
    ]
    client = connect(store)
    asked = Asked(kind="vault", items="v" * 64, merge=merges[2], judgement="j")
    look = begin_look(client, "demo", asked, "<script>run</script>", lambda number: 0.1)
    gain = Interval(mean=0.2, low=0.1, high=0.3)
    write_look(client, "demo", look.model_copy(update={"decision": "PROMOTE", "gain": gain, "excess": 0.05}))
    client.create_model_version("demo", "file:///theirs", tags={"their": "own"})  # nothing of Loreline's
    write_history_page(tmp_path / "page.html", store, merged_runs(store))
    return (tmp_path / "page.html").read_text()


def test_every_night_is_there_the_newest_first(page: str) -> None:
    places = [page.index(f"models:/demo/{number}") for number in (3, 2, 1)]
    assert places == sorted(places)
    assert "models:/demo/4" not in page
    assert "vault vvvvvvvv" in page


def test_the_picture_is_one(page: str) -> None:
    start = page.index("data:image/png;base64,") + len("data:image/png;base64,")
    picture = imread(BytesIO(b64decode(page[start : page.index('"', start)])))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 0.05


def test_names_are_escaped_and_nothing_is_fetched(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page


def test_without_a_run_there_is_a_page_too(store: RegisterParams, tmp_path: Path) -> None:
    write_history_page(tmp_path / "page.html", store, [])
    assert "no test items were looked at yet" in (tmp_path / "page.html").read_text()
    with pytest.raises(BadInput, match="cannot be written"):
        write_history_page(tmp_path / "none" / "page.html", store, [])
