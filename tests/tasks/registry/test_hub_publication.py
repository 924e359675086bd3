"""A promoted version on the Hub: one pull request, with its card; a Hub that fails takes nothing back."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants, metadata_eval_result

from tasks.base.errors import BadInput, Unavailable
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.base.records.registration import Registration
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.promote_version import promote_if_auto, promote_version, roll_back
from tasks.registry.hub_publication import hub_card
from tasks.registry.store import connect
from tasks.registry.versions import aliases
from tests.support.hub_server import Hub
from tests.support.promotions import promotable, register

REPO = "lab/merged"


@pytest.fixture
def hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Have an empty repository, and a token by the Hub's own means."""
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server.repos[REPO].commit({}, branch="main")
    return server


@pytest.fixture
def params(store: RegisterParams, tmp_path: Path) -> Params:
    return promotable(tmp_path, store.model_copy(update={"push_to": REPO}))


def champion(params: Params) -> int | None:
    return aliases(connect(params.register_), params.register_.name).get("champion")


def front_matter(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---")[1])
    return found


def test_a_promoted_version_becomes_one_pull_request(hub: Hub, params: Params, tmp_path: Path) -> None:
    register(params, tmp_path / "merge", 80)
    first = promote_version(params, None, "ann", "better")
    [pull] = hub.repos[REPO].pulls
    assert first.sentence.endswith(f"; on the Hub: {hub.url}/{REPO}/discussions/1")
    assert pull["title"].startswith("demo version 1 (")
    assert pull["description"].startswith("PROMOTE: likely/acc")
    assert set(pull["files"]) == {"README.md", "merge.json", "model.safetensors"}
    assert pull["files"]["model.safetensors"] == b"weights of merge"
    card = pull["files"]["README.md"].decode()
    told = front_matter(card)
    assert told["tags"] == ["merge", "loreline"]
    [index] = told["model-index"]  # type: ignore[misc]
    [result] = index["results"]
    assert (result["dataset"]["name"], result["metrics"][0]["type"], result["metrics"][0]["value"]) == (
        "likely",
        "acc",
        0.8,
    )
    assert "100 items" in result["metrics"][0]["name"]
    assert "## Verdict\n\nPROMOTE: likely/acc" in card
    assert (
        "A confirmation on items that no merge before was judged by."
        in card.split("## What was not shown")[1]
    )
    read = ModelCard(card).data.eval_results
    assert read is not None
    assert read[0].dataset_split == "test"
    assert metadata_eval_result(  # what the Hub's own helper makes of the same facts has the same keys
        model_pretty_name="demo", task_pretty_name="t", task_id="text-generation", metrics_pretty_name="acc",
        metrics_id="acc", metrics_value=0.8, dataset_pretty_name="likely", dataset_id="likely", dataset_split="test",
    )["model-index"][0]["results"][0].keys() == result.keys()  # fmt: skip
    assert "s3cret" not in f"{pull}{first}"
    assert {headers.get("authorization") for headers in hub.asked("POST api/models")} == {"Bearer hf_s3cret"}


@pytest.mark.parametrize("status", ["open", "merged", "closed"])
def test_promoting_again_opens_no_second_one(hub: Hub, params: Params, tmp_path: Path, status: str) -> None:
    register(params, tmp_path / "merge", 80)
    promote_version(params, None, "ann", "better")
    hub.repos[REPO].pulls[0]["status"] = status
    again = promote_version(params, None, "ann", "better")
    assert (again.moved, len(hub.repos[REPO].pulls)) == (False, 1)
    assert again.sentence.endswith(f"{REPO}/discussions/1 ({status})")
    register(params, tmp_path / "better", 95)
    promote_version(params, None, "ann", "better")
    assert len(hub.repos[REPO].pulls) == 2
    roll_back(params.register_, "ann", "latency")
    assert len(hub.repos[REPO].pulls) == 2


@pytest.mark.parametrize(
    "request_", ["POST api/models/lab/merged/commit", "GET api/models/lab/merged/discussions"]
)
def test_a_push_that_fails_leaves_the_promotion_and_is_made_up(
    hub: Hub, params: Params, tmp_path: Path, request_: str
) -> None:
    register(params, tmp_path / "merge", 80)
    hub.faults = {request_: [500]}
    with pytest.raises(
        Unavailable,
        match="champion: models:/demo/1 .*; but it is not published: hf://lab/merged: the Hub answers HTTP 500",
    ):
        promote_version(params, None, "ann", "better")
    assert (champion(params), hub.repos[REPO].pulls) == (1, [])
    promote_version(params, None, "ann", "better")
    assert len(hub.repos[REPO].pulls) == 1


def test_an_automatic_promotion_publishes_and_makes_up_for_what_failed(
    hub: Hub, params: Params, tmp_path: Path
) -> None:
    auto = params.model_copy(update={"register_": params.register_.model_copy(update={"promote": "auto"})})
    register(auto, tmp_path / "merge", 80)
    registration = Registration.read(tmp_path / "merge" / "registration" / "registration.json")
    hub.faults = {"POST api/models/lab/merged/commit": [403]}
    with pytest.raises(BadInput, match="access is refused"):
        promote_if_auto(auto, registration)
    made_up = promote_if_auto(auto, registration)
    assert made_up is not None
    assert "on the Hub: " in made_up.sentence
    assert len(hub.repos[REPO].pulls) == 1


def test_what_stops_a_push_is_said(
    hub: Hub, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(params, tmp_path / "merge", 80)
    del hub.repos[REPO]
    with pytest.raises(BadInput, match="hf://lab/merged: no such repository, or a private one"):
        promote_version(params, None, "ann", "better")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set; unset it and promote again"):
        promote_version(params, None, "ann", "better")
    hub.stop()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(Unavailable, match="the Hub cannot be reached"):
        promote_version(params, None, "ann", "better")


def test_without_push_to_the_hub_is_not_asked(hub: Hub, store: RegisterParams, tmp_path: Path) -> None:
    params = promotable(tmp_path, store)
    register(params, tmp_path / "merge", 80)
    promote_version(params, None, "ann", "better")
    assert hub.requests == []


def test_the_card_names_the_repositories_that_were_merged(hub: Hub, params: Params, tmp_path: Path) -> None:
    register(params, tmp_path / "merge", 80)
    report = MergeReport.read(tmp_path / "merge" / "merged" / "merge.json")
    paths = (
        "hf://lab/run@" + "0" * 40 + "/checkpoint-1",
        "hf://lab/other@" + "1" * 40,
        "/training/checkpoint-9",
    )
    sources = tuple(MergeInput(path=path, step=1, digest="d") for path in paths)
    evaluation = Evaluation.read(tmp_path / "merge" / "evaluation" / "evaluation.json")
    card = hub_card("# A model", report.model_copy(update={"inputs": sources}), evaluation, "demo")
    assert front_matter(card)["base_model"] == ["lab/other", "lab/run"]
    assert "# A model" in card


@pytest.mark.parametrize(
    "repo", ["name", "org/name/more", "../name", "hf://org/name", "org/..", "a:b@org/name"]
)
def test_push_to_is_one_repository(repo: str) -> None:
    with pytest.raises(ValueError, match="push_to"):
        RegisterParams(push_to=repo)
