"""Names of the precisions that a model's weights can have in inference."""

FLOATS = ("float32", "bfloat16")
QUANTIZED = ("int8", "int4")
