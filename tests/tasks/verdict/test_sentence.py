"""The sentence says what the fields hold; nobody has to read it to know the facts."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.base.records.evaluation import Evaluation
from tasks.verdict.sentence import with_sentence
from tests.support.evaluated import evaluation_of, result

OLD_RECORD = Path(__file__).with_name("evaluation_0.1.0.json")
ITEMS = 120
WAVE = np.sin(np.arange(ITEMS) * 7.0)  # a spread that no random generator decides


def nll(level, phase=0, items=ITEMS):
    return (3.0 - level + 0.2 * np.roll(WAVE, phase))[:items]


def right(count):
    return (np.arange(ITEMS) < count).astype(float)


LAST, MERGE = result(nll=nll(0.0)), result(nll=nll(0.3, 1))
CASES = {
    "better": ({"last": LAST, "merge": MERGE}, {}),
    "worse": ({"last": result(nll=nll(0.3)), "merge": result(nll=nll(0.0, 1))}, {}),
    "gain ruled out": ({"last": LAST, "merge": MERGE}, {"min_gain": 0.5}),
    "open": ({"last": LAST, "merge": result(nll=nll(0.01, 1))}, {}),
    "equal": ({"last": result(acc=right(30)), "merge": result(acc=right(30))}, {"primary": "t/acc"}),
    "chance": ({"last": result(acc=right(30)), "merge": result(acc=right(34))}, {"primary": "t/acc"}),
    "few": ({"last": result(nll=nll(0.0, 0, 60)), "merge": result(nll=nll(0.3, 1, 60))}, {}),
    "very few": ({"last": result(nll=nll(0.0, 0, 20)), "merge": result(nll=nll(0.3, 1, 20))}, {}),
    "the same on every item": ({"last": result(nll=nll(0.0)), "merge": result(nll=nll(0.3))}, {}),
    "others worsen": (
        {
            "last": result(nll=nll(0.0), acc=right(30), em=right(9)),
            "merge": result(nll=nll(0.3, 1), acc=right(20), em=right(4)),
        },
        {"margins": {"t/em": 0.001}},
    ),
    "others open": (
        {
            "last": result(nll=nll(0.0), acc=right(30)),
            "merge": result(nll=nll(0.3, 1), acc=right(29)),
        },
        {},
    ),
    "one open": (
        {
            "last": result(nll=nll(0.0), acc=right(30), em=right(30)),
            "merge": result(nll=nll(0.3, 1), acc=right(29), em=right(40)),
        },
        {},
    ),
    "strictly": (
        {
            "last": result(nll=nll(0.0), acc=right(30), em=right(30)),
            "merge": result(nll=nll(0.3, 1), acc=right(29), em=right(40)),
        },
        {"guard_strictly": ("t/acc",)},
    ),
    "every opponent": ({"last": LAST, "average": result(nll=nll(0.29, 2)), "merge": MERGE}, {}),
    "beside the average": (
        {"last": LAST, "average": result(nll=nll(0.3, 2)), "merge": MERGE},
        {"beat_average": False},
    ),
}
WORDS = {
    "better": "PROMOTE: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), and nothing else is shown to worsen by more than its margin. Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
    "worse": "KEEP: t/nll worsens by 0.3 [0.282, 0.318] against the last (120 items), so a gain of more than 0 is ruled out. Gains at 2.5 % one-sided: over the last -0.3 [-0.318, -0.282] (0 won, 120 lost).",
    "gain ruled out": "KEEP: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), so a gain of more than 0.5 is ruled out. Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
    "open": "INCONCLUSIVE: t/nll gains 0.01 [-0.00806, 0.028] over the last (120 items), which leaves open whether it gains more than 0; these items find gains of 0.0255 or more four times in five. Gains at 2.5 % one-sided: over the last 0.01 [-0.00806, 0.028] (62 won, 58 lost).",
    "equal": "KEEP: t/acc gains 0 [0, 0] over the last (120 items), the two being equal on every item. Gains at 2.5 % one-sided: over the last 0 [0, 0] (0 won, 0 lost, p = 1).",
    "chance": "INCONCLUSIVE: t/acc improves by 0.0333 [0.00075, 0.0774] over the last (120 items), but 4 items won and 0 lost may be chance (exact p = 0.12); these items find gains of 0.0461 or more four times in five. Gains at 2.5 % one-sided: over the last 0.0333 [0.00075, 0.0774] (4 won, 0 lost, p = 0.12).",
    "few": "INCONCLUSIVE: t/nll improves by 0.298 [0.272, 0.324] over the last (60 items), but promotion takes 100 items. Gains at 2.5 % one-sided: over the last 0.298 [0.272, 0.324] (60 won, 0 lost).",
    "very few": "INCONCLUSIVE: t/nll improves by 0.313 [0.264, 0.361] over the last (20 items), but nothing can be shown with so few items. Gains at 2.5 % one-sided: over the last 0.313 [0.264, 0.361] (20 won, 0 lost).",
    "the same on every item": "INCONCLUSIVE: t/nll improves by 0.3 [0.3, 0.3] over the last (120 items), but the gain is the same on every item, which says nothing of others. Gains at 2.5 % one-sided: over the last 0.3 [0.3, 0.3] (120 won, 0 lost, p = 1.5e-36).",
    "others worsen": "KEEP: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), but t/acc worsens by 0.0833 against the last, more than its margin of 0.01 and t/em worsens by 0.0417 against the last, more than its margin of 0.001. Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
    "others open": "INCONCLUSIVE: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), but the other metrics together are not shown to hold against the last (in units of their margins they gain -0.833, down to -3.11). Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
    "one open": "PROMOTE: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), and nothing else is shown to worsen by more than its margin. Not shown to hold within its margin: t/acc against the last (losses of 0.0207 would be found). Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
    "strictly": "INCONCLUSIVE: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), but t/acc is not shown to hold within its margin of 0.01 against the last (gain -0.00833, down to -0.0311). Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
    "every opponent": "INCONCLUSIVE: t/nll gains 0.01 [-0.00805, 0.0281] over the average (120 items), which leaves open whether it gains more than 0; these items find gains of 0.0255 or more four times in five. Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost); over the average 0.01 [-0.00805, 0.0281] (63 won, 57 lost).",
    "beside the average": "PROMOTE: t/nll improves by 0.3 [0.282, 0.318] over the last (120 items), and nothing else is shown to worsen by more than its margin; the plain average of the same checkpoints is as good or better. Gains at 2.5 % one-sided: over the last 0.3 [0.282, 0.318] (120 won, 0 lost).",
}


def evaluated(name) -> Evaluation:
    results, chosen = CASES[name]
    return evaluation_of(results, **chosen)


@pytest.mark.parametrize("name", CASES)
def test_the_words_are_these(name):
    assert evaluated(name).verdict.sentence == WORDS[name]


@pytest.mark.parametrize(
    ("name", "decision", "rule"),
    [
        ("better", "PROMOTE", "better"),
        ("worse", "KEEP", "gain_ruled_out"),
        ("gain ruled out", "KEEP", "gain_ruled_out"),
        ("open", "INCONCLUSIVE", "gain_open"),
        ("equal", "KEEP", "equal"),
        ("chance", "INCONCLUSIVE", "may_be_chance"),
        ("few", "INCONCLUSIVE", "too_few_items"),
        ("the same on every item", "INCONCLUSIVE", "constant_gain"),
        ("others worsen", "KEEP", "others_worsen"),
        ("others open", "INCONCLUSIVE", "harm_open"),
        ("strictly", "INCONCLUSIVE", "guard_open"),
        ("every opponent", "INCONCLUSIVE", "gain_open"),
    ],
)
def test_which_rule_decided_is_a_field(name, decision, rule):
    verdict = evaluated(name).verdict
    assert (verdict.decision, verdict.reason.rule) == (decision, rule)


def test_saying_it_again_changes_nothing():
    for name in CASES:
        assert with_sentence(evaluated(name)) == evaluated(name)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    for name in CASES:
        evaluated(name).write(tmp_path / "evaluation.json")
        assert Evaluation.read(tmp_path / "evaluation.json") == evaluated(name)


class TestAnOldRecord:
    """MLflow keeps for years what older releases wrote, with fewer fields than today."""

    def test_it_is_read_and_keeps_its_sentence(self):
        old = Evaluation.read(OLD_RECORD)
        assert (old.verdict.decision, old.verdict.against) == ("PROMOTE", "last")
        assert (old.verdict.reason, old.verdict.opponents) == (None, ())
        assert with_sentence(old) == old
        assert old.decisive.gain.mean == pytest.approx(0.3)

    def test_one_with_a_reason_but_without_opponents_keeps_its_sentence_too(self):
        """Written after 0.1.0 and before every opponent counted."""
        record = json.loads(OLD_RECORD.read_text())
        record["verdict"] |= {
            "decision": "INCONCLUSIVE",
            "items_needed": 828,
            "reason": {
                "rule": "others_worsen",
                "min_gain": 0.0,
                "worsened": [{"metric": "t/acc", "loss": 0.1, "margin": 0.01}],
            },
            "beside_average": "no_better",
        }
        old = Evaluation.model_validate_json(json.dumps(record))
        assert old.verdict.items_needed == 828
        assert with_sentence(old) == old

    def test_today_every_field_of_it_is_still_written(self):
        old, new = json.loads(OLD_RECORD.read_text()), evaluated("better").model_dump(mode="json")
        assert old.keys() == new.keys()
        assert old["verdict"].keys() <= new["verdict"].keys()
        assert old["differences"][0].keys() <= new["differences"][0].keys()
