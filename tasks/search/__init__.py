"""Candidates for the merge, their budget, and what the select items say of them."""
