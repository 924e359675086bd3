"""params.yaml: one frozen model a section, and how it is read, overridden and explained."""
