"""Model states in pickles: read by restricted loaders in a process of its own, written as safetensors."""
