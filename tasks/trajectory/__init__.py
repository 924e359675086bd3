"""A run as a curve: what was logged along it, and which checkpoints a rule chooses."""
