"""Names of the precisions that a model's weights can have when it answers."""

FLOATS = ("float32", "bfloat16")
QUANTIZED = ("int8", "int4")
