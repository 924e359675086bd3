"""Removing passwords and signatures in URLs from texts that are shown or logged."""

import re


def without_secrets(text: str) -> str:
    """Remove user:password@ and query strings from the URLs in a text."""
    return re.sub(r"(\w+://)[^/\s]*@", r"\1", re.sub(r"(\w+://[^\s?]*)\?[^\s]*", r"\1", text))
