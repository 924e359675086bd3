"""What tests share: reference computations, tiny models and projects, servers."""
