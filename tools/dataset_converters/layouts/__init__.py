"""Readers of data layouts: each yields pairs of a location, for error messages, and a sample in our schema."""
