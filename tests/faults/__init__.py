"""What must not break it, tried by the hundred: faults of the system, kills, hostile inputs (`make test-faults`)."""
