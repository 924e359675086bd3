"""Records that stages pass to each other: small, frozen, JSON on disk, never a tensor."""
