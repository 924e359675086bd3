"""A share of the documents is set apart by their content alone, whole clusters at a time."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.item_split import document_keys, part_of, places_in
from tasks.evaluation.task_spec import ItemPart, TaskSpec

DOCUMENTS = [{"question": f"{i} + {i}", "passage": i // 5, "answer": 2 * i} for i in range(1000)]


def chosen(documents: list[dict[str, Any]], kind: Any, share: float, cluster: str | None = None) -> list[int]:
    return places_in(documents, ItemPart(kind, share), cluster)


@given(st.floats(0.05, 0.95), st.sampled_from([None, "passage"]))
def test_the_two_parts_are_everything_and_share_nothing(share: float, cluster: str | None) -> None:
    test, vault = (chosen(DOCUMENTS, kind, share, cluster) for kind in ("test", "vault"))
    assert sorted(test + vault) == list(range(1000))
    tolerance = 5 * (share * (1 - share) / (200 if cluster else 1000)) ** 0.5  # five standard errors
    assert len(vault) / 1000 == pytest.approx(share, abs=tolerance)


def test_order_and_neighbours_do_not_matter() -> None:
    vault = {DOCUMENTS[i]["question"] for i in chosen(DOCUMENTS, "vault", 0.3)}
    shuffled = random.Random(0).sample(DOCUMENTS, 600)
    again = {shuffled[i]["question"] for i in chosen(shuffled, "vault", 0.3)}
    assert again == vault & {document["question"] for document in shuffled}


def test_a_larger_vault_holds_the_smaller_one() -> None:
    assert set(chosen(DOCUMENTS, "vault", 0.1)) <= set(chosen(DOCUMENTS, "vault", 0.3))


def test_clusters_stay_together() -> None:
    vault = {DOCUMENTS[i]["passage"] for i in chosen(DOCUMENTS, "vault", 0.3, "passage")}
    test = {DOCUMENTS[i]["passage"] for i in chosen(DOCUMENTS, "test", 0.3, "passage")}
    assert not vault & test


def test_equal_documents_are_told_by_their_content() -> None:
    assert list(document_keys([{"a": 1, "b": 2}])) == list(document_keys([{"b": 2, "a": 1}]))
    assert len(set(document_keys(DOCUMENTS))) == 1000


def test_a_part_is_another_task_and_so_are_its_members() -> None:
    group = TaskSpec("g", {}, "g", (TaskSpec("a", {}, "a"), TaskSpec("b", {}, "b")))
    test, vault = (part_of(group, ItemPart(kind, 0.3)) for kind in ("test", "vault"))
    digests = [each.digest for spec in (group, test, vault) for each in (spec, *spec.members)]
    assert len(set(digests)) == 9
    assert [member.part for member in vault.members] == [ItemPart("vault", 0.3)] * 2
