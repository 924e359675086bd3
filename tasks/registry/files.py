"""A model's files in the artifact store: linking or uploading, checking and downloading them."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.base.digests import file_digests, linking
from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.base.publish import MANIFEST, Manifest, link_read_only, publishing
from tasks.registry.store import store_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = "loreline.files"
LOADED_NOTE = "registered_model_meta"
"""MLflow writes it beside an MLmodel, into a local store too, whenever a version is loaded."""


def verify_directory(directory: Path, remedy: str) -> Manifest:
    """Return the manifest of a published directory after checking every file against it.

    Raises BadInput naming the first file that is missing, changed or was added, and the remedy.
    """
    manifest = Manifest.read(directory / MANIFEST)
    ours = (path for path in directory.rglob("*") if path != directory / LOADED_NOTE)
    paths = [path for path in ours if path.is_file() and path.name != MANIFEST]
    recorded = {file.name: file for file in manifest.files}
    present = {file.name: file for file in file_digests(directory, paths, manifest.files)}
    for name in sorted(recorded.keys() | present.keys()):
        if recorded.get(name) != present.get(name):
            problem = (
                "missing" if name not in present else "changed" if name in recorded else "not part of it"
            )
            raise BadInput(directory / name, f"{problem}, according to {MANIFEST} beside it", remedy)
    return manifest


def check_files(directory: Path, recorded: str) -> None:
    """Check every file of a registered model against the digest that its version recorded.

    Raises BadInput naming the file that differs.
    """
    remedy = "register the merge again, or promote another version"
    if digest_of_files(verify_directory(directory, remedy)) != recorded:
        raise BadInput(directory / MANIFEST, "not the one that was registered", remedy)


def digest_of_files(manifest: Manifest) -> str:
    """Return the identity of all files of a model directory, the model card included."""
    return digest_of(manifest.files)


def store_files(
    client: "MlflowClient", model: Any, source: Path, manifest: Manifest, added: Mapping[str, bytes]
) -> None:
    """Make a logged model hold exactly the files of `manifest`: those of `source`, and the few `added` ones.

    Where the store is local, those of `source` are hard links, which nobody can write through.
    """
    target = local_directory(model.artifact_location)
    if target is None:
        _upload(client, model, source, manifest, added)
    elif not _holds(target, manifest):
        with publishing(target, manifest.made_from, owned=True, like=manifest.files) as scratch:
            own = [file.name for file in manifest.files if file.name not in added]
            with linking(source / name for name in own):
                for name in own:
                    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                    link_read_only(source / name, scratch / name)
            _write(scratch, added)


def download_model(client: "MlflowClient", uri: str, target: Path, recorded: str | None) -> Path:
    """Keep a checked download of a remote model at `target` and return the model's directory in it.

    Raises BadInput, leaving `target` as it was, when the files are not those that were registered.
    """
    from mlflow.artifacts import download_artifacts

    target.parent.mkdir(parents=True, exist_ok=True)
    with store_lock(uri, "download"), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model = Path(download_artifacts(uri, dst_path=scratch, tracking_uri=client.tracking_uri))
        if recorded is not None:
            check_files(model, recorded)
        shutil.rmtree(target, ignore_errors=True)
        model.rename(target)
    return target


def local_directory(uri: str) -> Path | None:
    """Return the directory of an artifact location on this machine; None for a remote one."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets that hold no IPv6 address
        return None
    if parts.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parts.path)).absolute()


def _holds(target: Path, manifest: Manifest) -> bool:
    try:
        return verify_directory(target, remedy="") == manifest
    except BadInput:
        return False


def _upload(
    client: "MlflowClient", model: Any, source: Path, manifest: Manifest, added: Mapping[str, bytes]
) -> None:
    """Upload, unless the tag that is set after a complete upload is there."""
    wanted = digest_of_files(manifest)
    stored = {file.path for file in client.list_logged_model_artifacts(model.model_id)}
    needed = {file.name.partition("/")[0] for file in manifest.files} | {MANIFEST}
    if model.tags.get(FILES) == wanted and needed <= stored:
        return
    client.log_model_artifacts(model.model_id, str(source))
    with tempfile.TemporaryDirectory() as beside:
        _write(Path(beside), added)
        manifest.write(Path(beside) / MANIFEST)  # in place of that of `source`
        client.log_model_artifacts(model.model_id, beside)
    client.set_logged_model_tags(model.model_id, {FILES: wanted})


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
