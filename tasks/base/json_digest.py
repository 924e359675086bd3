"""The digest of a value that JSON can hold, records among them."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"not JSON-able: {type(value).__name__}")
