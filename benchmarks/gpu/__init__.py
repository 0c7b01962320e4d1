"""What tools/analysis_tools/gpu_check.py checks and measures on a GPU, in parts that cannot stop each other."""
