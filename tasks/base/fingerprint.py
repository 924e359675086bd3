"""What a stage's output depends on: parameters, inputs, and the code that made it."""

import ast
import functools
import hashlib
from pathlib import Path
from typing import Any

from tasks.base.records import digest_of

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
    """List the source files of `module` and, transitively, of every tasks.* module that it imports."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name not in found and path is not None:
            found[name] = path
            waiting.extend(_imports(path))
    return sorted(found.values())


def _source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith("tasks.")]
