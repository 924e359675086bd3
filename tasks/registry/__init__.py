"""The MLflow model registry: connecting to it, recording merges, and moving the champion alias."""
