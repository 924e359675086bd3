"""Requests to object stores through fsspec: folders are listed, objects described, errors become ours."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.base.errors import BadInput, LorelineError, Unavailable
from tasks.base.hub_address import HUB
from tasks.base.json_digest import digest_of
from tasks.checkpoints.layout import LORELINE_FILES, is_readable
from tasks.checkpoints.names import fits_file_system
from tasks.sources.readiness import NotReady

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PART = r"(?!\.{1,2}(?:/|$))[^/\\?#%*\x00-\x1f\x7f]+"
_PROTOCOL = re.compile(r"([a-z][a-z0-9]*)://")
_ADDRESS = re.compile(
    rf"{_PROTOCOL.pattern}/?(?!/|\.{{1,2}}(?:/|$))[^/@:\\?#%*\x00-\x1f\x7f]+(?::\d+)?(?:/{_PART})*"
)
"""No user name, password or query, which could be a secret, and no path that leads elsewhere."""
VERSIONS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "Content-MD5", "crc32c", "Digest")
"""Where stores tell the version of an object, in what fsspec tells of it: the first that is there counts."""
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "modified", "mtime", "created")


class StoredObject(NamedTuple):
    """An object of a store, as it was listed."""

    name: str
    path: str
    size: int
    version: str
    """Digest of size and checksum, of size and time where the store has no checksum."""
    modified: float | None
    """Seconds since 1970; None where the store does not tell."""


def is_store_address(address: str) -> bool:
    """Tell by its form whether an address lies in a store that fsspec knows, the Hub aside."""
    match = _PROTOCOL.match(address)
    return match is not None and not address.startswith(HUB) and match[1] in _known_protocols()


def check_store_address(address: str, key: str) -> None:
    """Raise BadInput, without quoting it, for an address that holds more than a place in a store."""
    if not _ADDRESS.fullmatch(address):
        raise BadInput(
            key,
            "not an address of a folder in a store",
            "write s3://bucket/run without user name, query or wildcard; credentials go where the store's "
            "own tools find them",
        )


def open_store(address: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of an address and the path in it; nothing that it lists is cached."""
    from fsspec.core import url_to_fs

    with store_errors(address):
        store, path = url_to_fs(address, use_listings_cache=False)
    return store, path.rstrip("/")


def folders_in(store: "AbstractFileSystem", path: str) -> list[str]:
    """List the names of the folders directly in one, each once."""
    return sorted({name for name, info in _entries(store, path) if info["type"] == "directory"})


def wanted_objects(store: "AbstractFileSystem", path: str) -> list[StoredObject]:
    """List the objects directly in a folder that are read, by name: no pickles, no code.

    Raises BadInput for a name that cannot be a file's here, and for a link.
    """
    wanted = [
        (name, info)
        for name, info in _entries(store, path)
        if info["type"] != "directory" and name not in LORELINE_FILES and is_readable(name)
    ]
    for name, info in wanted:
        if not re.fullmatch(_PART, name) or not fits_file_system(name):
            raise BadInput(path, f"holds {name!r}, which is no name of a file", "rename it or remove it")
        if info.get("islink") or info["type"] != "file":
            raise BadInput(f"{path}/{name}", "not a regular file", "put the file itself there")
    return sorted(_described(store, name, info) for name, info in wanted)


def still_there(store: "AbstractFileSystem", known: StoredObject) -> bool:
    """Tell whether an object is there unchanged."""
    try:
        return _described(store, known.name, store.info(known.path)).version == known.version
    except FileNotFoundError:
        return False


@contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Turn errors of a store into ours, without its messages, which can hold credentials."""
    try:
        yield
    except (LorelineError, NotReady):
        raise
    except Exception as error:
        raise _translate(address, error) from None


@cache
def _known_protocols() -> frozenset[str]:
    from fsspec import available_protocols

    return frozenset(available_protocols())


def _entries(store: "AbstractFileSystem", path: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield name and description of what lies directly in a folder; a key such as a//b or a/ does not."""
    for info in store.ls(path, detail=True):
        folder, _, name = info["name"].rstrip("/").rpartition("/")
        if folder == path:
            yield name, info


def _described(store: "AbstractFileSystem", name: str, info: dict[str, Any]) -> StoredObject:
    """Describe an object, asking the store again where its list says too little."""
    path = info["name"]
    if info.get("size") is None or not any(info.get(key) for key in (*VERSIONS, *TIMES)):
        info = {**info, **store.info(path)}
    if type(info.get("size")) is not int or info["size"] < 0:
        raise BadInput(path, "its store does not tell its size", "copy the run to another store")
    told = next((str(info[key]) for key in VERSIONS if info.get(key)), None)
    modified = next((_seconds(info[key]) for key in TIMES if info.get(key)), None)
    return StoredObject(name, path, info["size"], digest_of([info["size"], told or modified]), modified)


def _seconds(time: datetime | float | str) -> float:
    """Return a time as stores tell it (naive ones are UTC) in seconds since 1970."""
    if isinstance(time, int | float):
        return float(time)
    if isinstance(time, str):
        time = datetime.fromisoformat(time) if time[:1].isdigit() else parsedate_to_datetime(time)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _forget_clients(address: str) -> None:
    """Let the next look find credentials and endpoint anew: somebody may put them right while we watch."""
    from fsspec import get_filesystem_class

    get_filesystem_class(address.partition("://")[0]).clear_instance_cache()


def _translate(address: str, error: Exception) -> LorelineError:
    name, status = type(error).__name__, getattr(error, "status", None)
    if isinstance(error, ImportError):
        told = str(error) or "its package"
        protocol = address.partition("://")[0]
        return BadInput(address, f"no package for {protocol}:// is installed", told[:1].lower() + told[1:])
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return BadInput(address, "there is nothing", "check the bucket and the path")
    if isinstance(error, PermissionError) or status in (401, 403) or re.search("Credential|Authenti", name):
        _forget_clients(address)
        return BadInput(
            address,
            "access is refused, or there are no credentials",
            "let them list and read it, and put them where the store's own tools find them "
            "(for S3 AWS_PROFILE or AWS_ACCESS_KEY_ID)",
        )
    if isinstance(error, ValueError) or "Validation" in name:
        return BadInput(address, f"cannot be an address of that store ({name})", "check how it is written")
    _forget_clients(address)
    return Unavailable(
        address, f"the store cannot be reached ({name})", "check the network and the endpoint, or try later"
    )
