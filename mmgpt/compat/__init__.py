"""Compatibility with files of earlier releases: the names that configs and checkpoints had there."""
