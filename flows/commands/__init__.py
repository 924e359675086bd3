"""The subcommands of `loreline`, by what they are about; heavy libraries are imported in the functions."""
