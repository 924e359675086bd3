"""A crop has a matrix's proportions, and lies all over it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.engine.crop import cropped, read_crop, small
from tasks.engine.plan import Plan
from tests.support.engine_runs import params_for, plan_for, write_all, write_noise

ROWS, COLUMNS = 320, 60


@pytest.fixture
def counted(tmp_path: Path) -> Plan:
    """Plan a merge of matrices whose elements say where they are, and of which checkpoint."""
    index = torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS)
    return plan_for(params_for("lore"), write_all(tmp_path, [{"a": index + i} for i in range(4)]))


def test_a_crop_is_spread_over_the_matrix(counted: Plan) -> None:
    """An eighth of the work is half of either side."""
    thetas = read_crop(counted, cropped(counted, "a", 1 / 8)).thetas
    assert np.shape(thetas) == (3, ROWS // 2, COLUMNS // 2)
    for i, theta in enumerate(thetas, 1):
        places = theta - i
        row, column = places // COLUMNS, places % COLUMNS
        assert (row == row[:, :1]).all()
        assert (column == column[:1]).all()
        assert (np.diff(row[:, 0]) > 0).all()
        assert (np.diff(column[0]) > 0).all()
        assert (row[0, 0], row[-1, 0], column[0, 0], column[0, -1]) == (0, ROWS - 1, 0, COLUMNS - 1)


def test_a_matrix_that_takes_no_longer_is_whole(counted: Plan) -> None:
    for share in (1.0, 5.0):
        block = read_crop(counted, cropped(counted, "a", share))
        np.testing.assert_array_equal(
            block.thetas[0], counted.inputs[0].read("a", 0, ROWS * COLUMNS, np.float32).reshape(ROWS, COLUMNS)
        )


def test_a_small_crop_has_at_most_that_side(tmp_path: Path) -> None:
    plan = plan_for(params_for("lore"), write_noise(tmp_path, {"a": (40, 5), "stack": (3, 8, 9)}))
    assert small(plan, "a", 16)[1:] == (16, 5)
    assert small(plan, "stack", 16)[1:] == (8, 9)
