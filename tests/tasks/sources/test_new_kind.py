"""A new kind of source is one file in `kinds`: here an in-memory one, put beside the others for a test."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.doctor.parameters import check_source
from tasks.doctor.training_runs import local_runs
from tasks.fetch_run import fetch_run
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.parameters.watch import WatchParams
from tasks.sources import kinds
from tasks.sources.addresses import normal_address, observe, sources_in
from tasks.sources.staging import staged
from tests.support.tiny import write_checkpoint

KIND = '''
"""Training runs on a shelf: shelf://RUN, a dictionary of this process."""

from collections.abc import Iterable
from pathlib import Path

from tasks.base.directories import cache_dir
from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.checkpoints.names import numbered
from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.readiness import complete_upload
from tasks.sources.run_status import RunStatus, status_of
from tasks.sources.source import FetchedCheckpoint, FetchedRun, RunSource

SHELF: dict[str, dict[str, dict[str, bytes]]] = {}  # run → checkpoint → file → bytes


class ShelfSource(RunSource):
    def matches(self, address: str) -> bool:
        return address.startswith("shelf://")

    def run_name(self, address: str) -> str:
        return address.removeprefix("shelf://")

    def observe(self, address: str, quiet_for: float, registry: RegisterParams) -> RunStatus:
        digest = digest_of({name: sorted(files) for name, files in self._run(address).items()})
        return status_of(digest, False, "on the shelf", age=60, quiet_for=quiet_for)

    def fetch(self, params: FetchParams, registry: RegisterParams) -> FetchedRun:
        addresses = [(step, name, f"{params.source}/{name}") for step, name in numbered(self._run(params.source))]
        return complete_upload(
            [FetchedCheckpoint(step, name, self.restore(place), place) for step, name, place in addresses]
        )

    def restore(self, address: str) -> Path:
        run, _, name = address.rpartition("/")
        directory = cache_dir() / "shelf" / digest_of(address)
        directory.mkdir(parents=True, exist_ok=True)
        for file, data in self._run(run)[name].items():
            (directory / file).write_bytes(data)
        return directory

    def runs_in(self, root: str, project: Path, registry: RegisterParams) -> Iterable[str]:
        return [f"shelf://{name}/" for name in SHELF]

    def _run(self, address: str) -> dict[str, dict[str, bytes]]:
        try:
            return SHELF[self.run_name(address)]
        except KeyError:
            raise BadInput("fetch.source", f"{address}: is not on the shelf", "put it there") from None
'''


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the module, put a run on its shelf, and return the run's address."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "shelf.py").write_text(KIND)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "more")])
    from tasks.sources.kinds.shelf import SHELF  # type: ignore[import-not-found]

    checkpoints = [write_checkpoint(tmp_path / "out", step) for step in (20, 100)]
    SHELF["one"] = {
        path.name: {file.name: file.read_bytes() for file in path.iterdir()} for path in checkpoints
    }
    yield "shelf://one"
    del sys.modules["tasks.sources.kinds.shelf"]


def test_its_runs_are_fetched_staged_and_restored(source: str, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    run = fetch_run(FetchParams(source=source), artifacts)
    assert (run.name, run.source) == ("one", source)
    assert [(c.step, c.name, c.source) for c in run.checkpoints] == [
        (step, f"checkpoint-{step}", f"{source}/checkpoint-{step}") for step in (20, 100)
    ]
    assert run.checkpoints[0].metrics == {"loss": 1.0, "eval_loss": 0.05}
    local = fetch_run(FetchParams(source=str(tmp_path / "out"), settle=0), tmp_path / "local")
    assert run.digest == local.digest
    shutil.rmtree(artifacts / "checkpoints")
    weights = staged(run.checkpoints[1], artifacts) / "model.safetensors"
    assert weights.read_bytes() == (tmp_path / "out" / "checkpoint-100" / "model.safetensors").read_bytes()
    assert fetch_run(FetchParams(source=source), artifacts) == run


def test_its_runs_are_listed_and_observed(source: str, tmp_path: Path) -> None:
    params = RegisterParams()
    assert sources_in(["shelf://"], tmp_path, params) == [source]
    assert normal_address(f"{source}/", tmp_path) == source
    going, quiet = observe(source, 61, params), observe(source, 60, params)
    assert (going.ended, going.reason) == (False, "still training: on the shelf, last change 60 s ago")
    assert (quiet.ended, quiet.digest) == (True, going.digest)
    with pytest.raises(BadInput, match="shelf://other: is not on the shelf"):
        observe("shelf://other", 60, params)


def test_an_incomplete_upload_is_refused_by_its_address(source: str, tmp_path: Path) -> None:
    from tasks.sources.kinds.shelf import SHELF

    SHELF["one"]["checkpoint-100"]["trainer_state.json"] = json.dumps({"global_step": 99}).encode()
    with pytest.raises(
        BadInput, match=f"{source}/checkpoint-100: .* is of step 99; its upload is incomplete"
    ):
        fetch_run(FetchParams(source=source), tmp_path / "artifacts")


def test_the_doctor_does_not_ask_it(source: str, tmp_path: Path) -> None:
    params = Params(
        fetch=FetchParams(source=source), watch=WatchParams(roots=("shelf://",)),
        evaluate=EvaluateParams(tasks=("t",), primary="t/nll"),
    )  # fmt: skip
    assert check_source(params)[0].found == f"{source} (not asked)"
    assert local_runs(params, tmp_path) == {}


def test_without_its_file_its_addresses_are_paths(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="shelf://one: no such directory"):
        observe("shelf://one", 60, RegisterParams())
