"""Measuring models: what lm-eval tasks ask, and what a model answers to each item."""
