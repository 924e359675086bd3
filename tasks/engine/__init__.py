"""The engine: plans a merge, streams its blocks through all cores or GPUs, and resumes after a kill."""
