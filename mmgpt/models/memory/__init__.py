"""Memory and speed of a model: planner, quantization, compiled layers."""
