"""The result of a check."""

from typing import Literal, NamedTuple

Area = Literal[
    "Versions",
    "Parameters",
    "Prefect",
    "Registry",
    "Versioning",
    "Disk",
    "GPU",
    "Training runs",
    "Clock",
    "Doctor",
]
"""In the order shown; Doctor: a check that itself failed."""
Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was checked."""

    area: Area
    subject: str
    found: str
    level: Level = "ok"
    remedy: str = ""
    """What to do: a command where there is one."""


def gigabytes(count: float) -> str:
    """Return a number of bytes in GB or MB, for messages."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
