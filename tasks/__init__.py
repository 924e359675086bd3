"""The stages, one file each, and the rooms below them: plain typed functions, without Prefect."""
