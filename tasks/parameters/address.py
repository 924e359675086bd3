"""Addresses of runs: they are logged, hashed, committed and kept by servers, so they hold no secret."""

import re

from pydantic import AfterValidator

from tasks.base.errors import without_secrets

PASSWORD_IN_PATH = re.compile(r"\w+:/(?!/).*:.*@")
"""mlflow:/ has no place for a user, so that one is written into its path."""


def _no_secret(address: str) -> str:
    if without_secrets(address) != address or PASSWORD_IN_PATH.match(address):
        raise ValueError(
            "holds a user, a password or a query",
            "leave them out: credentials belong in the environment",
        )
    return address


no_secret = AfterValidator(_no_secret)
"""Annotation of an address: without user, password or query, which may be a signature."""
