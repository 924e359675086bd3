"""What a published directory holds, by its manifest, and what in it is not Loreline's."""

import os
import re
from pathlib import Path

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.records import FileDigest, Record, digest_of

MANIFEST = "manifest.json"
LONGEST = 200
"""Bytes of a name, so that what is put before and behind it fits into the 255 of a file system."""


class Manifest(Record):
    """The fingerprint that a published directory was made from, and its files."""

    made_from: str
    files: tuple[FileDigest, ...]


def is_published(directory: Path, made_from: str) -> bool:
    """Tell whether `directory` is the intact output of exactly these inputs."""
    manifest = read_manifest(directory)
    return manifest is not None and manifest.made_from == made_from and manifest.files == contents(directory)


def is_intact(directory: Path) -> bool:
    """Tell whether a published directory still holds what its manifest says."""
    manifest = read_manifest(directory)
    return manifest is not None and manifest.files == contents(directory)


def read_manifest(directory: Path) -> Manifest | None:
    """Read a directory's manifest; None where it has none that can be read."""
    try:
        return Manifest.read(directory / MANIFEST)
    except BadInput:
        return None


def contents(directory: Path) -> tuple[FileDigest, ...]:
    """Digest a directory's files, all but its manifest and what a writer keeps there for a while."""
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    own = own_name(directory)
    return file_digests(directory, (path for path in paths if not own.match(_first(directory, path))))


def check_untouched(directory: Path) -> None:
    """Raise BadInput also when a file is not what its manifest says: a user may have trained on there."""
    check_replaceable(directory)
    manifest = read_manifest(directory)
    known = {file.name: file for file in manifest.files} if manifest else {}
    for file in contents(directory):
        if known.get(file.name) != file:
            raise BadInput(
                directory / file.name,
                "was changed since Loreline wrote it, and would be replaced",
                "move it away, or write somewhere else",
            )


def check_replaceable(directory: Path) -> None:
    """Raise BadInput when a directory holds files that its manifest does not name, which are the user's."""
    if not directory.exists():
        return
    manifest = read_manifest(directory)
    ours = {directory / file.name for file in manifest.files} | {directory / MANIFEST} if manifest else set()
    ours |= {parent for path in ours for parent in path.parents}
    own = own_name(directory)
    others = (path for path in directory.rglob("*") if not own.match(_first(directory, path)))
    if found := sorted(set(others) - ours):
        raise BadInput(
            found[0],
            f"is not part of what Loreline wrote to {directory}, which would be replaced",
            "move it away, or write somewhere else",
        )


def stem_of(directory: Path) -> str:
    """Return what names of a directory's lock and scratch directories begin with, after a dot."""
    name = directory.name
    return name if len(os.fsencode(name)) <= LONGEST else digest_of(name)


def own_name(directory: Path) -> re.Pattern[str]:
    """Return the pattern of names of a directory's lock and scratch directories."""
    return re.compile(rf"\.{re.escape(stem_of(directory))}\.([0-9a-f]{{16}}(\.old)?|lock(\.holder)?)$")


def _first(directory: Path, path: Path) -> str:
    return path.relative_to(directory).parts[0]
