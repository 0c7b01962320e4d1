"""Names of an earlier release, in configs, checkpoints and Python code, accepted for one release with a warning."""
