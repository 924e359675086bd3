"""The name of the user, for records; it is not verified."""

import getpass
import os
import socket
import subprocess


def whoami() -> str:
    """Return git's user.email, else login@host."""
    try:
        asked = ["git", "config", "--get", "user.email"]
        mail = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        mail = ""
    return mail or f"{_login()}@{socket.gethostname()}"


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A container's user often has no name.
        return str(os.getuid())
