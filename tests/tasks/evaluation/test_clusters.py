"""Items that belong together are known by a field of their documents, which all of them must have."""

import json
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tests.support.measuring import run
from tests.support.tiny_world import TASKS, rows, write_task

QUESTIONS = tuple(str(row["question"]) for row in rows(12))


def test_the_field_of_the_parameters_names_them(tiny: Path, folder: Path) -> None:
    found = run(tiny, folder, ("likely", "choose"), "likely/nll", cluster="question")
    assert found["likely"].clusters == found["choose"].clusters == QUESTIONS
    assert len(set(QUESTIONS)) == 4


def test_a_mapping_names_a_field_for_each_task(tiny: Path, folder: Path) -> None:
    found = run(tiny, folder, ("likely", "choose"), "likely/nll", cluster={"likely": "question"})
    assert (found["likely"].clusters, found["choose"].clusters) == (QUESTIONS, ())


def test_a_task_s_metadata_names_it_unless_the_parameters_do(tiny: Path, folder: Path) -> None:
    write_task(folder, "own", TASKS["likely"] + "metadata: {version: 1, cluster: question}\n")
    assert run(tiny, folder, ("own",), "own/nll")["own"].clusters == QUESTIONS
    gold = run(tiny, folder, ("own",), "own/nll", cluster="gold")["own"]
    assert gold.clusters == ("1",) * 12


def test_a_document_without_the_field_is_named_before_a_model_loads(
    tiny: Path, folder: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    passages = [{**row, "passage": "p"} for row in rows(12)]
    del passages[7]["passage"]
    (tmp_path / "data" / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    with pytest.raises(
        BadInput, match="evaluate.cluster: document 7 of likely has no passage; name one that"
    ):
        run(tiny, folder, ("likely",), "likely/nll", cluster="passage")
    assert not loaded
