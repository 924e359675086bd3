"""A row for each kind of matrix, its medians and worst values."""

import numpy as np
import pytest

from tasks.reporting.lore_table import LORE_HEADER, lore_rows
from tests.support.lore_measures_reference import AVERAGED, COLUMNS, EDGE, measures, spiked, tensors

Q = [measures(spiked(seed), EDGE, 0.5, passes=seed, gap=seed / 1e6) for seed in (4, 9, 7)]
UP = measures(spiked(5), 2 * EDGE)
TENSORS = tensors({f"model.layers.{i}.q.weight": found for i, found in enumerate(Q)} | {
    "model.layers.0.up.weight": UP, "model.norm.weight": AVERAGED,
})  # fmt: skip


def test_kinds_have_the_medians_of_their_matrices() -> None:
    q, up = lore_rows(TENSORS)
    assert q[0] == "model.layers.*.q.weight"
    assert up[0] == "model.layers.*.up.weight"
    rank = np.median([np.mean(f.active) for f in Q])
    assert q[2] == f"{rank:.3g} ({rank / COLUMNS:.0%})"
    expected = {
        "μ / edge": EDGE / (EDGE * np.sqrt(2 / 3)),
        "effective rank": np.median([np.mean(f.effective_ranks) for f in Q]),
        "explained": 100 * np.median([f.explained for f in Q]),
        "surviving": 100 * np.median([f.share for f in Q]),
        "from mean": 100 * np.median([f.from_mean for f in Q]),
    }
    for column, value in expected.items():
        assert float(q[LORE_HEADER.index(column)].rstrip("%")) == pytest.approx(value, rel=5e-3, abs=0.05)
    assert q[-2:] == ["9.0e-06", "9"]


def test_every_row_fills_the_header() -> None:
    assert {len(row) for row in lore_rows(TENSORS)} == {len(LORE_HEADER)}


def test_what_is_exactly_low_rank_has_no_edge_to_compare_with() -> None:
    (row,) = lore_rows(tensors({"w": measures(spiked(0), EDGE, edge=0.0)}))
    assert row[LORE_HEADER.index("μ / edge")] == "-"
