"""What `loreline doctor` looks at: one file per kind of check; nothing is made, started or changed."""
