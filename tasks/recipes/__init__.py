"""Recipes: one merge as a file, ours or mergekit's."""
