"""What a check found."""

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
"""In the order in which they are shown; Doctor: a check that itself failed."""
Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    area: Area
    subject: str
    found: str
    level: Level = "ok"
    remedy: str = ""
    """What to do: a command where there is one."""


def gigabytes(count: float) -> str:
    """Write a number of bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
