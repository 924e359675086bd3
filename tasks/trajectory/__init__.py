"""A run's trajectory: its logged metrics, and the rules that choose checkpoints."""
