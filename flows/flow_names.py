"""The names of Loreline's flows in Prefect."""

FLOWS = ["watch", "merge", "promote"]
