"""The names of Loreline's flows in Prefect."""

FLOWS = ["watch", "merge", "promote"]
OLD_FLOWS = ["after-training"]
"""Those that release 0.1 had besides."""
