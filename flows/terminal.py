"""Text on the terminal, in which names from elsewhere control nothing."""

import logging

from tasks.base.errors import plain_lines


def tell(text: str) -> None:
    """Print a result on stdout."""
    print(plain_lines(text))


class PlainFormatter(logging.Formatter):
    """Formats the warnings of stages."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, safe to show."""
        return plain_lines(super().format(record))
