"""Weights: key maps of the published layouts, safe reading, writing, sharded checkpoints."""
