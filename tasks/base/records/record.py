"""What every record is, and the fields that records of several kinds have."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tasks.base.errors import BadInput, brief
from tasks.base.regular_files import open_regular


class Record(BaseModel):
    """A frozen record that reads and writes itself as JSON with stable bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path) -> None:
        """Write as indented JSON; the same record gives the same bytes."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read from JSON; raises BadInput when the file is missing or not such a record."""
        try:
            file, _ = open_regular(path)
            with file:
                return cls.model_validate_json(file.read())
        except FileNotFoundError:
            raise BadInput(path, "not there", "run the stage that writes it first") from None
        except (OSError, ValidationError) as error:
            problem = brief(error) if isinstance(error, OSError) else str(error).splitlines()[0]
            raise BadInput(
                path, f"not a {cls.__name__} record ({problem})", "remove it and run again"
            ) from None


def _with_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_with_zone)]
"""A time in ISO 8601, with its zone."""


class Interval(Record):
    """An estimate with its 95 % interval."""

    mean: float
    low: float
    high: float


def _below(name: str) -> str:
    """Refuse names that lead out: files are replaced and removed by them."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in name:
        raise ValueError("leads out of its directory")
    return name


def absent(value: Any) -> bool:
    """Tell whether a field is left out of the JSON, as older releases leave it."""
    return value is None


def is_empty(given: Collection[Any]) -> bool:
    """Tell whether a collection is left out of the JSON likewise."""
    return not given


class FileDigest(Record):
    """A file below its directory."""

    name: Annotated[str, AfterValidator(_below)]
    """Relative to the directory, with slashes."""
    size: int
    sha256: str | None = Field(default=None, exclude_if=absent)
    """In records of releases that knew no other digest."""
    blake3: str | None = Field(default=None, exclude_if=absent)

    @property
    def digest(self) -> str:
        """What tells its bytes from all others, with the name of the algorithm unless that is SHA-256."""
        assert self.is_digested, f"{self.name} is not digested yet"
        return self.sha256 or f"blake3:{self.blake3}"

    @property
    def is_digested(self) -> bool:
        """Whether it has a digest."""
        return bool(self.sha256 or self.blake3)
