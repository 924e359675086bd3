"""Records of a registration, or of why there is none."""

from tasks.base.records.record import Record


class Unregistered(Record):
    """That a merge was not registered, and why."""

    digest: str
    """Of the merge."""
    reason: str


class Registration(Record):
    """The model version that a merge became."""

    name: str
    version: int
    model_id: str
    run_id: str
    digest: str
    aliases: tuple[str, ...]
    """The aliases set at registration, whatever moved since."""
