"""A run of a deployment cannot name task files, which can run Python; a run by hand can."""

from pathlib import Path

import pytest
import yaml
from prefect.runtime import deployment

from flows.given_params import given_params
from tasks.base.errors import BadInput
from tasks.parameters.params import read_params

TREE = {
    "fetch": {"source": "runs/x"},
    "evaluate": {"tasks": ["t"], "primary": "t/nll", "include_path": "own"},
}


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(TREE))
    return path


def test_without_parameters_it_is_what_the_machine_says(params_file: Path) -> None:
    assert given_params(None) == read_params(params_file)


def test_a_deployment_s_run_has_the_machine_s_task_files_or_none(
    params_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = read_params(params_file, ["evaluate.include_path=/tmp/others"])
    assert given_params(others) == others  # by hand
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "8b1cb6cf-1f3c-4bd2-b1c8-4f1d5d1d6a55")
    assert deployment.id is not None
    with pytest.raises(BadInput, match="evaluate.include_path: /tmp/others is not that of params.yaml"):
        given_params(others)
    for setting in ("evaluate.include_path=null", "evaluate.min_gain=1"):
        asked = read_params(params_file, [setting])
        assert given_params(asked) == asked
