"""Addresses of runs: they are logged, hashed, committed and kept by servers, so they hold no secret."""

from pydantic import AfterValidator

from tasks.base.errors import without_secrets


def _no_secret(address: str) -> str:
    if without_secrets(address) != address:
        raise ValueError(
            "holds a user, a password or a query",
            "leave them out: credentials belong in the environment",
        )
    return address


no_secret = AfterValidator(_no_secret)
"""Annotation of an address: without user, password or query, which may be a signature."""
