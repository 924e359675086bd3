"""A small but real fine-tuning run, made on the spot, for the workflow to merge."""
