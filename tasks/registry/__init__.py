"""The MLflow model registry: reaching it, recording a merge in it, and which version is in use."""
