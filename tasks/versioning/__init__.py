"""Versions of merged runs in git and DVC, without touching the user's index, work tree or branch."""
