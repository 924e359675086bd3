"""Whether the merge should replace what is in use: intervals, comparison, the gate."""
