"""Loading pickles without running anything in them: allow-lists, and inert stand-ins for foreign classes."""

import io
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tasks.base.errors import BadInput, LorelineError, of_system

AGAIN = "save or fetch the checkpoint again"


class Inert:
    """Stands for an object of a foreign class: takes any arguments, keeps its state, does nothing."""

    state: Any = None

    def __new__(cls, *_: Any) -> "Inert":
        """Ignore the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Keep the state; that of a plain object as its attributes."""
        self.state = state
        if isinstance(state, dict):
            self.__dict__.update(state)


class StandInEnum(int):
    """Stands for an enumeration whose members are numbers."""

    MEMBERS: ClassVar[Mapping[str, int]] = {}


def enum_member(stand_in: Any, name: str) -> Any:
    """Stand for getattr, by which Python before 3.11.4 pickles members of enumerations; looks nothing up."""
    if isinstance(stand_in, type) and issubclass(stand_in, Inert):
        return stand_in()
    if isinstance(stand_in, type) and issubclass(stand_in, StandInEnum) and name in stand_in.MEMBERS:
        return stand_in(stand_in.MEMBERS[name])
    raise pickle.UnpicklingError("GLOBAL getattr was not allowed")


GETATTR = ("builtins.getattr", "__builtin__.getattr")


def load_tensors(source: Path | io.BytesIO, place: Path, stand_ins: Iterable[tuple[type, str]] = ()) -> Any:
    """Load what torch.save wrote, tensors mapped from the file, by torch's restricted loader.

    `stand_ins` are classes and the full names of those that they stand for. Raises BadInput naming `place`
    for what is damaged, and for what would call or build anything else.
    """
    import torch

    try:
        with torch.serialization.safe_globals([*stand_ins, (enum_member, GETATTR[0])]):
            mapped = isinstance(source, Path) and zipfile.is_zipfile(source)  # legacy files cannot be mapped
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # of damaged files, torch raises whatever their bytes lead to
        raise _refusal(place, error) from None


def load_allowed(path: Path, allowed: Mapping[tuple[str, str], Any]) -> Any:
    """Unpickle a small file that may name only what is in `allowed`: (module, name) → what is taken for it.

    Raises BadInput for any other name, and for a damaged file.
    """
    try:
        with path.open("rb") as file:
            return _Restricted(file, allowed).load()
    except Exception as error:  # of damaged files, pickle raises whatever their bytes lead to
        raise _refusal(path, error) from None


class _Restricted(pickle.Unpickler):
    def __init__(self, file: Any, allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the allow-list, never import it."""
        if f"{module}.{name}" in GETATTR:
            return enum_member
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name} was not allowed")
        return self._allowed[module, name]


def _refusal(path: Path, error: Exception) -> LorelineError:
    """Say what is wrong with a file; torch's own words would advise to load it freely."""
    if isinstance(error, PermissionError):
        return of_system(error, path)
    _, named, rest = str(error).partition("GLOBAL ")
    if isinstance(error, pickle.UnpicklingError) and named:
        return BadInput(
            path,
            f"names {rest.split()[0]}, which no weights need, and was not loaded",
            "find out who wrote it, and convert it by hand if you trust it",
        )
    return BadInput(path, f"is truncated, or not what torch writes ({type(error).__name__})", AGAIN)
