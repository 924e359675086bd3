"""Measuring models on lm-eval tasks, item by item, with results kept on disk."""
