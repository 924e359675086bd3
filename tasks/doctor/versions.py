"""Checking installed versions: Python, the packages in constraints.txt, git."""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tasks.doctor.finding import Finding

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
PYTHON = (3, 11)
BINDING = ("fastapi", "sqlalchemy", "torch")
"""Packages whose other versions break something silently; constraints.txt says what."""


class Pin(NamedTuple):
    """A line of constraints.txt."""

    version: str
    reason: str


def check_versions() -> list[Finding]:
    """Check Python, the packages that Loreline names, and git."""
    return [_python(), *_packages(), _git()]


def read_pins(text: str) -> dict[str, Pin]:
    """Return canonical package name → pin."""
    lines = re.findall(r"^([\w.-]+)==([^\s#]+)[ \t]*(?:#[ \t]*(.*))?$", text, flags=re.MULTILINE)
    return {canonicalize_name(name): Pin(number, reason) for name, number, reason in lines}


def wrong_pins(pins: Mapping[str, Pin], installed: Mapping[str, str | None]) -> list[Finding]:
    """Report packages that are not as pinned; a build's suffix (+cpu, +cu130) does not count."""
    found = []
    for name, number in installed.items():
        if name not in pins:
            continue
        pin, remedy = pins[name], f"pip install --constraint constraints.txt {name}=={pins[name].version}"
        if number is None:
            found.append(Finding("Versions", name, "is not installed", "problem", remedy))
        elif Version(number).public != Version(pin.version).public:
            binding = name in BINDING
            reason = f" ({pin.reason})" if binding else ""
            text = f"{number} is installed, {pin.version} was tried{reason}"
            found.append(Finding("Versions", name, text, "problem" if binding else "warning", remedy))
    return found


def _packages() -> list[Finding]:
    if not CONSTRAINTS.is_file():
        text = f"not compared: {CONSTRAINTS} is missing"
        return [
            Finding("Versions", "packages", text, "warning", "run loreline from a clone of its repository")
        ]
    pins, named = read_pins(CONSTRAINTS.read_text(encoding="utf-8")), {*_needed(), *BINDING}
    wrong = wrong_pins(pins, {name: _installed(name) for name in sorted(named)})
    right = len(named & pins.keys()) - len(wrong)
    return [Finding("Versions", "packages", f"{right} of {right + len(wrong)} as in constraints.txt"), *wrong]


def _needed() -> Iterable[str]:
    """Return the packages that Loreline depends on, without its extras."""
    found = [Requirement(line) for line in requires("loreline") or []]
    return {canonicalize_name(each.name) for each in found if "extra" not in str(each.marker)}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _python() -> Finding:
    number = platform.python_version()
    if Version(number).release >= PYTHON:
        return Finding("Versions", "Python", number)
    wanted = ".".join(map(str, PYTHON))
    return Finding("Versions", "Python", number, "problem", f"install Python {wanted}, then make setup")


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding(
            "Versions", "git", "is not installed", "problem", "install git: merges are versioned with it"
        )
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout
    return Finding("Versions", "git", said.removeprefix("git version").strip() or "says nothing")
