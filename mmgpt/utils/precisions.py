"""Names of the precisions that a model's weights can have in inference."""

AUTO = "auto"  # the float that is fast on the machine
FLOATS = ("float32", "bfloat16")
QUANTIZED = ("int8", "int4")
PRECISIONS = (AUTO, *FLOATS, *QUANTIZED)
