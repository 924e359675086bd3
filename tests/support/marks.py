"""Marks on single values of a parametrised test."""

from typing import Any

import pytest


def slow(value: object) -> Any:
    """Leave a value to `make test-long`."""
    return pytest.param(value, marks=pytest.mark.slow)
