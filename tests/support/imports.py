"""The project's imports and public names, read from its sources without running them."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOPS = ("loreline", "flows", "tasks")
Graph = Mapping[str, frozenset[str]]
"""Module -> the project's modules that it imports anywhere, also inside functions."""


@cache
def sources() -> dict[str, Path]:
    """Map every module of the project to its file; a package to its __init__.py."""
    found = {}
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def graph() -> Graph:
    """Return who imports whom."""
    return {module: frozenset(_imports(path)) - {module} for module, path in sources().items()}


def longest_chain() -> list[str]:
    """Return the longest chain of modules that import each other one after the other."""

    @cache
    def below(module: str) -> tuple[str, ...]:
        return (module, *max((below(other) for other in graph()[module]), key=len, default=()))

    return list(max((below(module) for module in graph()), key=len))


def circles() -> list[str]:
    """Return the modules that can be reached from themselves."""

    @cache
    def reached(module: str) -> frozenset[str]:
        seen: set[str] = set()
        waiting = list(graph()[module])
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += graph()[other]
        return frozenset(seen)

    return sorted(module for module in graph() if module in reached(module))


def public_names(path: Path) -> Iterator[str]:
    """Yield the public functions, classes and constants that a file defines."""
    for node in ast.parse(path.read_bytes()).body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def external_imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, the project's and the standard library's too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in sources() else node.module for name in inside]
        # A package's own file only says what it is: its files are what is imported.
        yield from (n for n in names if n in sources() and sources()[n].name != "__init__.py")
