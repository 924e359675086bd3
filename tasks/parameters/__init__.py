"""params.yaml: one frozen model for each section; reading, overriding and explaining it."""
