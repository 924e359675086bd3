"""The executor: plans a merge, streams it through every core or GPU, and survives being killed."""
