"""Utilities that depend on nothing else in the package: atomic writes, locks, JSON files, versions."""
