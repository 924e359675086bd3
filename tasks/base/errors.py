"""The two ways a stage stops: the user can mend it, or the world failed."""

from typing import Self


class LorelineError(Exception):
    """What a user is told: the file or key, what is wrong with it, what to do; code reads the fields."""

    exit_code = 1

    def __init__(self, subject: object, problem: str, remedy: str) -> None:
        super().__init__(str(subject), problem, remedy)
        self.subject = str(subject)
        """The file or key; empty where only whoever catches it knows (see `within`)."""
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.told}" if self.subject else self.told

    @property
    def told(self) -> str:
        """Problem and remedy, for whoever has named the subject."""
        return f"{self.problem}; {self.remedy}"

    def within(self, place: str) -> Self:
        """Return the same error with its subject placed in something larger."""
        subject = f"{place}: {self.subject}" if self.subject else place
        return type(self)(subject, self.problem, self.remedy)


class BadInput(LorelineError):
    """Parameters or checkpoints that cannot be used as they are; trying again does not help."""

    exit_code = 2


class Unavailable(LorelineError):
    """A server or network that did not answer; the same command may succeed later."""


def brief(error: BaseException) -> str:
    """Return a library's error in brief: its kind, and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
