"""Hooks of training and evaluation runs, one per file."""
