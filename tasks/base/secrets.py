"""What may be said of a text that a URL with a password or a signature could be in."""

import re


def without_secrets(text: str) -> str:
    """Remove user:password@ and query strings from the URLs in a text."""
    return re.sub(r"(\w+://)[^/\s]*@", r"\1", re.sub(r"(\w+://[^\s?]*)\?[^\s]*", r"\1", text))
