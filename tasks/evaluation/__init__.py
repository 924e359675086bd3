"""Measuring models: lm-eval runs item by item, paired statistics, and the gate that gives the verdict."""
