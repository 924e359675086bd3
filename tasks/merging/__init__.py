"""The merge methods: pure functions on blocks of tensors, without files or threads."""
