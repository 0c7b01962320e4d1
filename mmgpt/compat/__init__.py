"""What only older files need: names that configs and checkpoints had in an earlier release."""
