"""The sentence says what the fields hold, in the words of 0.1.0; nobody has to read it to know the facts."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.base.records import Evaluation
from tasks.verdict.sentence import with_sentence
from tests.support.evaluated import evaluation_of, result

OLD_RECORD = Path(__file__).with_name("evaluation_0.1.0.json")
ITEMS = 60
WAVE = np.sin(np.arange(ITEMS) * 7.0)  # a spread that no random generator decides


def nll(level, phase=0):
    return 3.0 - level + 0.2 * np.roll(WAVE, phase)


def right(count):
    return (np.arange(ITEMS) < count).astype(float)


LAST, MERGE = result(nll=nll(0.0)), result(nll=nll(0.3, 1))
CASES = {
    "better": ({"last": LAST, "merge": MERGE}, {}),
    "worse": ({"last": result(nll=nll(0.3)), "merge": result(nll=nll(0.0, 1))}, {}),
    "gain ruled out": ({"last": LAST, "merge": MERGE}, {"min_gain": 0.5}),
    "open": ({"last": LAST, "merge": result(nll=nll(0.01, 1))}, {}),
    "open for ever": ({"last": LAST, "merge": result(nll=nll(0.0, 1))}, {}),
    "equal": ({"last": result(acc=right(30)), "merge": result(acc=right(30))}, {"primary": "t/acc"}),
    "chance": ({"last": result(acc=right(30)), "merge": result(acc=right(34))}, {"primary": "t/acc"}),
    "others worsen": (
        {
            "last": result(nll=nll(0.0), acc=right(30), em=right(9)),
            "merge": result(nll=nll(0.3, 1), acc=right(20), em=right(8)),
        },
        {"margins": {"t/em": 0.001}},
    ),
    "average as good": ({"last": LAST, "average": result(nll=nll(0.3, 2)), "merge": MERGE}, {}),
    "average not beaten": ({"last": LAST, "average": result(nll=nll(0.29, 2)), "merge": MERGE}, {}),
    "open beside the average": (
        {"last": LAST, "average": result(nll=nll(0.3, 2)), "merge": result(nll=nll(0.01, 1))},
        {},
    ),
}
RECORDED = {
    "better": "PROMOTE: t/nll improves by 0.3 [0.275, 0.326] over the last (60 items), and nothing else worsens by more than its margin.",
    "worse": "KEEP: t/nll worsens by 0.3 [0.274, 0.325] against the last (60 items), so a gain of more than 0 is ruled out.",
    "gain ruled out": "KEEP: t/nll improves by 0.3 [0.275, 0.326] over the last (60 items), so a gain of more than 0.5 is ruled out.",
    "open": "INCONCLUSIVE: t/nll gains 0.01 [-0.0148, 0.0356] over the last (60 items), which leaves open whether it gains more than 0; about 828 items would settle it.",
    "open for ever": "INCONCLUSIVE: t/nll gains 0 [-0.0248, 0.0256] over the last (60 items), which leaves open whether it gains more than 0.",
    "equal": "KEEP: t/acc gains 0 [0, 0] over the last (60 items), the two being equal on every item.",
    "chance": "INCONCLUSIVE: t/acc improves by 0.0667 [0.0167, 0.15] over the last (60 items), but 4 items won and 0 lost may be chance (exact p = 0.12); about 112 items would settle it.",
    "others worsen": "KEEP: t/nll improves by 0.3 [0.275, 0.326] over the last (60 items), but t/acc worsens by 0.167, more than its margin of 0.01 and t/em worsens by 0.0167, more than its margin of 0.001.",
    "average as good": "PROMOTE: t/nll improves by 0.3 [0.275, 0.326] over the last (60 items), and nothing else worsens by more than its margin; the plain average of the same checkpoints is as good or better.",
    "average not beaten": "PROMOTE: t/nll improves by 0.3 [0.275, 0.326] over the last (60 items), and nothing else worsens by more than its margin; it is not shown to beat the plain average of the same checkpoints.",
    "open beside the average": "INCONCLUSIVE: t/nll gains 0.01 [-0.0148, 0.0356] over the last (60 items), which leaves open whether it gains more than 0; about 828 items would settle it; the plain average of the same checkpoints is as good or better.",
}
"""What 0.1.0 said of the same numbers."""


def evaluated(name) -> Evaluation:
    results, chosen = CASES[name]
    return evaluation_of(results, **chosen)


@pytest.mark.parametrize("name", CASES)
def test_the_words_are_those_of_the_first_release(name):
    assert evaluated(name).verdict.sentence == RECORDED[name]


@pytest.mark.parametrize(
    ("name", "decision", "rule"),
    [
        ("better", "PROMOTE", "better"),
        ("worse", "KEEP", "gain_ruled_out"),
        ("gain ruled out", "KEEP", "gain_ruled_out"),
        ("open", "INCONCLUSIVE", "gain_open"),
        ("equal", "KEEP", "equal"),
        ("chance", "INCONCLUSIVE", "may_be_chance"),
        ("others worsen", "KEEP", "others_worsen"),
    ],
)
def test_which_rule_decided_is_a_field(name, decision, rule):
    verdict = evaluated(name).verdict
    assert (verdict.decision, verdict.reason.rule) == (decision, rule)


def test_what_worsens_is_there_with_its_margin():
    worsened = evaluated("others worsen").verdict.reason.worsened
    assert [(other.metric, other.margin) for other in worsened] == [("t/acc", 0.01), ("t/em", 0.001)]
    assert [other.loss for other in worsened] == pytest.approx([10 / 60, 1 / 60])


@pytest.mark.parametrize(
    ("name", "beside"),
    [("better", None), ("average as good", "no_better"), ("average not beaten", "not_shown_better")],
)
def test_how_it_stands_beside_the_average_is_a_field(name, beside):
    assert evaluated(name).verdict.beside_average == beside


def test_saying_it_again_changes_nothing():
    for name in CASES:
        assert with_sentence(evaluated(name)) == evaluated(name)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    for name in CASES:
        evaluated(name).write(tmp_path / "evaluation.json")
        assert Evaluation.read(tmp_path / "evaluation.json") == evaluated(name)


class TestAnOldRecord:
    """MLflow keeps what 0.1.0 wrote for years: a sentence, and no fields for what it says."""

    def test_it_is_read_and_keeps_its_sentence(self):
        old = Evaluation.read(OLD_RECORD)
        assert (old.verdict.decision, old.verdict.against) == ("PROMOTE", "last")
        assert old.verdict.reason is None
        assert with_sentence(old) == old
        assert old.decisive.gain.mean == pytest.approx(0.3)

    def test_it_holds_what_a_record_of_today_holds_but_for_the_fields(self):
        old, new = json.loads(OLD_RECORD.read_text()), evaluated("average not beaten").model_dump(mode="json")
        added = {"reason", "beside_average", "not_measured", "recorded"}
        assert new["verdict"].keys() - old["verdict"].keys() == added
        assert {key: new["verdict"][key] for key in old["verdict"]} == old["verdict"]
        assert [new[key] for key in ("primary", "models")] == [old[key] for key in ("primary", "models")]
