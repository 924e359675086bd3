"""The kinds of source: each module here defines one RunSource and is found automatically."""
