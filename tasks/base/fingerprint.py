"""Fingerprints of stage runs: the code, the inputs and the parameters that decide an output."""

import ast
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from tasks.base.json_digest import digest_of

ROOT = Path(__file__).parents[2]


def fingerprint(module: str, *inputs: Any) -> str:
    """Return the identity of a stage run: its code, and its inputs as JSON-able values or records."""
    return digest_of([code_digest(module), *inputs])


@functools.cache
def code_digest(module: str) -> str:
    """Return the SHA-256 over the sources that `module` imports from this project, itself included."""
    digest = hashlib.sha256()
    for path in code_files(module):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_files(module: str) -> list[Path]:
    """List the source files of `module` and, transitively, of every tasks.* module that it imports.

    A package that is imported as such, not a module of it, counts with all its files: one of them may be
    chosen only when the program runs.
    """
    found: set[Path] = set()
    waiting = _files(module)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return sorted(found)


IMPORT = re.compile(r"^[ \t]*(from tasks[\w.]* import (?:\([^)]*\)|.*)|import tasks.*)", re.MULTILINE)
"""An import of a part of this project: parsing whole files would take longer than a small merge."""


@functools.cache
def _imported(path: Path) -> list[Path]:
    files: list[Path] = []
    for statement in IMPORT.findall(path.read_text(encoding="utf-8")):
        [node] = ast.parse(statement).body
        if isinstance(node, ast.Import):
            files += [file for alias in node.names for file in _files(alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.module:
            files += _files(node.module)[:1]  # of a package its own __init__.py
            files += [file for alias in node.names for file in _files(f"{node.module}.{alias.name}")]
    return files


def _files(module: str) -> list[Path]:
    """Return the file of a tasks.* module, or all files of a package, its own __init__.py first."""
    path = ROOT.joinpath(*module.split("."))
    if not module.startswith("tasks."):
        return []
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    own = path / "__init__.py"
    return [own, *sorted(set(path.rglob("*.py")) - {own})] if own.is_file() else []
