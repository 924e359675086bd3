"""One model on disk: layout, headers, tensors, and agreement between models."""
