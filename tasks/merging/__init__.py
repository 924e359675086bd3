"""The mathematics of merging: pure functions on tensors. No files, no paths."""
