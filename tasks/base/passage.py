"""A text that models are measured on."""

from typing import NamedTuple


class Passage(NamedTuple):
    """A text and what stands before it: a prompt, which is not predicted."""

    prompt: str
    text: str

    @property
    def whole(self) -> str:
        """Both."""
        return self.prompt + self.text
