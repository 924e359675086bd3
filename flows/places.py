"""Which machine merges a run: the one whose disk holds it, else any that serves the project.

A project is a registered model. Every machine serves two deployments of the flow merge: the project's, whose
runs go to whoever asks first, and its own.
"""

import re
import socket
from glob import glob
from pathlib import Path

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from tasks.parameters.params import Params
from tasks.sources.addresses import source_of
from tasks.sources.disks import is_shared

MERGE = "merge"
"""The flow that merges one training run."""


def project_of(params: Params) -> str:
    """Return the project's name."""
    return project_named(params.register_.name)


def project_named(model: str) -> str:
    """Return the name of a registered model's project: without what Prefect takes in no name."""
    return re.sub(r"[/%&<>]", "-", model)


def tag_of(project: str) -> str:
    """Return the tag of a project's flow runs, which tells them from others' in automations and in prune."""
    return f"project:{project}"


def own_place(project: str, host: str | None = None) -> str:
    """Return the name of the deployments that only one machine serves, unset: this one."""
    return f"{project}@{host or socket.gethostname()}"


def place_for(params: Params, source: str) -> str:
    """Return the name of the deployment for a run that was seen on this machine."""
    project, directory = project_of(params), source_of(source).directory_of(source)
    return project if directory is None or is_shared(directory) else own_place(project)


def handed_over(params: Params, source: str, host: str) -> bool:
    """Start the merge of an announced run on the machine that announced it; False where it belongs here.

    It belongs here where this is that machine, where that one does not serve the project, and where disks
    that machines share hold it.
    """
    directory = source_of(source).directory_of(source)
    if host == socket.gethostname() or directory is None or (directory.is_dir() and is_shared(directory)):
        return False
    with get_client(sync_client=True) as client:
        try:
            theirs = client.read_deployment_by_name(f"{MERGE}/{own_place(project_of(params), host)}")
        except ObjectNotFound:
            return False
        given = {"run": source, "host": host, "project": flow_run.parameters.get("project", "")}
        client.create_flow_run_from_deployment(
            theirs.id, parameters=given, idempotency_key=f"{flow_run.id}-handed-over"
        )
    return True


def in_roots(params: Params, source: str) -> bool:
    """Tell whether a directory lies in a root of watch.roots; any does where no root is of directories."""
    directory = source_of(source).directory_of(source)
    roots = [root for root in params.watch.roots if source_of(root).directory_of(root) is not None]
    if directory is None or not roots:
        return True
    listed = (path for root in roots for path in glob(root, recursive=True))  # noqa: PTH207 (as watch lists them)
    return directory.resolve() in {Path(path).resolve() for path in listed}
