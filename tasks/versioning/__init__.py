"""Versions of merged runs in git and DVC, without touching what the user works on."""
