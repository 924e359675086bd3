"""Errors: those that the user can mend, and those after which trying again may help; each is one line."""

import unicodedata
from typing import Self

LONGEST = 1000
"""Characters of a line that are shown."""


class LorelineError(Exception):
    """An error with a subject, a problem and a remedy; code reads these fields, never the sentence."""

    exit_code = 1

    def __init__(self, subject: object, problem: str, remedy: str) -> None:
        super().__init__(str(subject), problem, remedy)
        self.subject = str(subject)
        """The file or key; empty where only the caller knows it (see `within`)."""
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{one_line(self.subject)}: {self.told}" if self.subject else self.told

    @property
    def told(self) -> str:
        """Problem and remedy, for messages that name the subject already."""
        return f"{one_line(self.problem)}; {one_line(self.remedy)}"

    def within(self, place: str) -> Self:
        """Return the same error with `place` in front of its subject."""
        subject = f"{place}: {self.subject}" if self.subject else place
        return type(self)(subject, self.problem, self.remedy)


class BadInput(LorelineError):
    """Parameters or checkpoints that cannot be used as they are; trying again does not help."""

    exit_code = 2


class Unavailable(LorelineError):
    """A server or network that did not answer; the same command may succeed later."""


def brief(error: BaseException) -> str:
    """Return a library's error in brief: its class, and the first line of its message."""
    return one_line(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text from elsewhere (a name, a message) as one line that is safe to show.

    What controls a terminal or reorders text is escaped. Of what is too long both ends stay.
    """
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    """Escape what has no shape of its own: control, format (such as bidirectional marks), surrogates."""
    if character == " " or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode()
