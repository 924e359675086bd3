"""Everything imported is declared in pyproject.toml, nothing declared is unused, and every floor is below its pin."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"loreline", "flows", "tasks", "tests", "docs"}
PRESENT = {
    "accelerate": "transformers' Trainer, which the demo runs, and lm-eval's models import it",
    "cmaes": "Optuna's sampler of that name imports it",
}
"""What no line of ours imports, and why it is declared."""


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


MAIN = requirements(PROJECT["dependencies"])
EXTRAS = {name: requirements(lines) for name, lines in PROJECT["optional-dependencies"].items()}


def imported(*folders: str) -> dict[str, set[str]]:
    """Return what some folders import: the module's name → the distributions that may bring it."""
    found, owners = set[str](), packages_distributions()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return {
        module: {canonicalize_name(owner) for owner in owners.get(module, [module])}
        for module in found - OURS - sys.stdlib_module_names
    }


@pytest.mark.parametrize(
    ("folders", "known"),
    [(("loreline", "flows", "tasks"), MAIN), (("tests", "docs"), MAIN | EXTRAS["dev"])],
    ids=["program", "tests"],
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], known: dict[str, Requirement]) -> None:
    missing = [module for module, owners in imported(*folders).items() if not owners & known.keys()]
    assert missing == []


def test_what_is_declared_is_imported() -> None:
    used = set().union(*imported("loreline", "flows", "tasks").values()) | PRESENT.keys()
    assert sorted(MAIN.keys() - used) == []


def test_every_floor_is_at_or_below_the_pin_that_was_tried() -> None:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = requirements([line for line in lines if line])
    for wanted in [*MAIN.values(), *(each for extra in EXTRAS.values() for each in extra.values())]:
        pin = next(iter(pins[canonicalize_name(wanted.name)].specifier)).version
        assert wanted.specifier, f"{wanted.name} has no floor"
        assert wanted.specifier.contains(pin, prereleases=True), f"{wanted} excludes the pin {pin}"
