"""The kinds of source: each module holds one RunSource, and is found by lying here."""
