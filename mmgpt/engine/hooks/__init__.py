"""Hooks of training and evaluation runs, one file each."""
