"""Errors: those that the user can mend, and those after which trying again may help; each is one line."""

import errno
import re
import unicodedata
from typing import Self

_FULL = "make room there and run the same command again"
_DENIED = "write somewhere else, or lift the restriction"
_SHORTEN = "choose a shorter name"
REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _DENIED,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EFBIG: _DENIED,
    errno.EIO: "check the disk, then run the same command again",
    errno.ENAMETOOLONG: _SHORTEN,
    errno.EMFILE: "raise the limit of open files (ulimit -n) and run the same command again",
    errno.ENOMEM: "free memory and run the same command again",
}
"""What to do when the system refuses, by its error number."""

LONGEST, LONGEST_SENTENCE = 1000, 5000
"""Characters that are shown of an error's part or a name, and of a line or a verdict."""
PASSWORD = re.compile(r"(\w://)[^\s/@:]*:(?!\d+(?:[/\s?]|$))(?:(?!\w://).)*@")
"""user:password@, where what follows the colon is no port; up to the line's end, or the next address."""
USER = re.compile(r"((?<!\bhf)(?<=\w)://)(?!/)\S*@")
SIGNATURE = re.compile(r"((?<!\bhf)(?<=\w)://[^\s?#;]*)(?:[?#]|;(?=\S))\S*|(\bhf://[^\s?]*)\?\S*")
"""What follows an address after ? # or ; (a revision of the Hub may hold the latter two)."""
SURROGATE = re.compile("[\ud800-\udfff]")


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
        return f"{_shown(self.subject)}: {self.told}" if self.subject else self.told

    @property
    def told(self) -> str:
        """Problem and remedy, for messages that name the subject already."""
        return f"{_shown(self.problem)}; {_shown(self.remedy)}"

    def within(self, place: str) -> Self:
        """Return the same error with `place` in front of its subject."""
        subject = f"{place}: {self.subject}" if self.subject else place
        return type(self)(subject, self.problem, self.remedy)


class BadInput(LorelineError):
    """Parameters or checkpoints that cannot be used as they are; trying again does not help."""

    exit_code = 2


class Unavailable(LorelineError):
    """A server or network that did not answer; the same command may succeed later."""


def of_system(error: OSError, place: object = "") -> LorelineError:
    """Return what the system refused as one sentence; `place` counts where the system names no file."""
    subject = error.filename or place
    problem = error.strerror or str(error) or type(error).__name__
    return LorelineError(
        subject, problem, REMEDIES.get(error.errno or 0, "mend it and run the same command again")
    )


def brief(error: BaseException) -> str:
    """Return an error in brief: its class and the first line of its message; of the system's what it says."""
    if isinstance(error, OSError) and error.strerror:
        return _shown(error.strerror)
    return _shown(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")


def without_secrets(text: str) -> str:
    """Remove user:password@, query strings and fragments from the URLs in a text.

    More may go than a secret, up to the last @ of the line: a password may hold / ? # @ and spaces. hf://
    addresses keep what follows an @, their revision.
    """
    for secret in (PASSWORD, USER, SIGNATURE):
        text = secret.sub(lambda found: "".join(filter(None, found.groups())), text)
    return text


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written to a file: a name on a disk may be no UTF-8."""
    return not SURROGATE.search(text)


def plain_lines(text: str) -> str:
    """Return lines, of which each is safe to show (see `one_line`)."""
    return "\n".join(one_line(line, LONGEST_SENTENCE) for line in text.split("\n"))


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text from elsewhere (a name, a message) as one line that is safe to show.

    What controls a terminal or reorders text is escaped. Of what is too long both ends stay.
    """
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(_visible(character) for character in text)


def _shown(text: str) -> str:
    return one_line(without_secrets(text))


def _visible(character: str) -> str:
    """Escape what has no shape of its own: control, format (such as bidirectional marks), surrogates."""
    if character == " " or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode()
