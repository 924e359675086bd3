"""The two ways a stage stops: the user can mend it, or the world failed."""


class LorelineError(Exception):
    """One sentence naming the file or key, what is wrong and what to do."""

    exit_code = 1


class BadInput(LorelineError):
    """Parameters or checkpoints that cannot be used as they are; trying again does not help."""

    exit_code = 2


class Unavailable(LorelineError):
    """A server or network that did not answer; the same command may succeed later."""


def brief(error: BaseException) -> str:
    """Return a library's error in brief: its kind, and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
