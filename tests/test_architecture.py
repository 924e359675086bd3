"""The house as docs/architecture.md draws it: rooms in order, imports that go down, one name for one thing."""

import ast
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.imports import (
    ROOT,
    circles,
    external_imports,
    graph,
    longest_chain,
    public_names,
    sources,
)

STAGES = (
    "fetch_run",
    "select_checkpoints",
    "search_merge",
    "merge_checkpoints",
    "evaluate_merge",
    "register_model",
    "version_artifacts",
    "promote_version",
)
ROOMS = (
    "reporting",
    "doctor",
    "search",
    "verdict",
    "versioning",
    "jobs",
    "evaluation",
    "sources",
    "registry",
    "engine",
    "recipes",
    "trajectory",
    "merging",
    "checkpoints",
    "parameters",
    "base",
)
"""From the top down: a room imports only from those after it."""
LONGEST_CHAIN, MOST_ROOMS, MOST_ARROWS = 12, 26, 112
EVERYWHERE = {"log"}
"""Names that every file may give its own: the logger, as the standard library's documentation has it."""


def room_of(module: str) -> str:
    top, _, rest = module.partition(".")
    return top if top != "tasks" else rest.partition(".")[0]


def floor_of(module: str) -> int:
    """Return how far down a module lies: loreline and flows, the stages, then the rooms."""
    room = room_of(module)
    if room in ("loreline", "flows"):
        return 0
    return 1 if room in STAGES else 2 + ROOMS.index(room)


def arrows() -> set[tuple[str, str]]:
    return {
        (room_of(one), room_of(other))
        for one, others in graph().items()
        for other in others
        if room_of(one) != room_of(other)
    }


def test_every_room_is_one_of_the_plan() -> None:
    assert {room_of(module) for module in graph() if module != "tasks"} <= {
        "loreline",
        "flows",
        *STAGES,
        *ROOMS,
    }


def test_imports_go_down_only() -> None:
    up = [
        f"{one} -> {other}"
        for one, others in graph().items()
        for other in others
        if not _goes_down(one, other)
    ]
    assert not up


def _goes_down(one: str, other: str) -> bool:
    if room_of(one) == room_of(other) or (room_of(one), room_of(other)) == ("flows", "loreline"):
        return True
    return floor_of(one) < floor_of(other)


def test_no_module_imports_itself_by_a_detour() -> None:
    assert not circles()


def test_the_longest_chain_of_imports_is_short() -> None:
    chain = longest_chain()
    assert len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


def test_there_are_few_rooms_and_few_arrows_between_them() -> None:
    assert len({room_of(module) for module in graph() if module != "tasks"}) <= MOST_ROOMS
    assert len(arrows()) <= MOST_ARROWS


def test_stages_do_not_import_each_other() -> None:
    assert not [arrow for arrow in arrows() if set(arrow) <= set(STAGES)]


def test_the_solver_knows_nothing_of_the_methods() -> None:
    """merging/lore is matrices in, factors and a certificate out."""
    inside = {m: others for m, others in graph().items() if m.startswith("tasks.merging.lore.")}
    outside = {o for others in inside.values() for o in others if not o.startswith("tasks.merging.lore.")}
    assert inside
    assert outside <= {"tasks.base.errors"}


def test_prefect_is_imported_in_flows_only() -> None:
    assert not [
        m for m, path in sources().items() if room_of(m) != "flows" and "prefect" in external_imports(path)
    ]


def test_loreline_needs_the_standard_library_and_transformers_only() -> None:
    import sys

    inside = [path for module, path in sources().items() if room_of(module) == "loreline"]
    needed = set().union(*map(external_imports, inside)) if inside else set()
    assert needed <= {*sys.stdlib_module_names, "loreline", "transformers"}


def test_a_public_name_is_defined_once() -> None:
    homes = defaultdict(list)
    for module, path in sources().items():
        for name in set(public_names(path)) - EVERYWHERE:
            homes[name].append(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


@pytest.mark.parametrize("path", [path for path in sources().values() if path.name == "__init__.py"], ids=str)
def test_every_room_says_its_idea(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_documentation_lists_the_rooms_in_this_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = [text.find(f"`tasks/{room}/`") for room in ROOMS]
    assert -1 not in places
    assert all(one < other for one, other in pairwise(places))
