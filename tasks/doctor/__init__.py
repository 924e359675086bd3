"""The checks of `loreline doctor`, one file for each kind; they make, start and change nothing."""
