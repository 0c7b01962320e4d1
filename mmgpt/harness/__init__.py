"""Adapters for other evaluation harnesses, which load them by name; this file imports none of them."""
