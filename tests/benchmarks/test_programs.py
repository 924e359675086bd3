"""Every benchmark and study can be begun: what it imports is where it looks."""

from importlib import import_module
from pathlib import Path

import pytest

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_it_can_be_imported(name: str) -> None:
    import_module(f"tests.benchmarks.{name}")
