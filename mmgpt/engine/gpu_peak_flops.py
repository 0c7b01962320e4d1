"""Peak FLOPS of GPUs, from their makers' data sheets."""

# The values hold for dense products of bfloat16 matrices summed in float32. Data sheets often give twice as much, for
# matrices with half of their values zero. The keys are words of the names that torch.cuda.get_device_name returns.
BFLOAT16_TFLOPS = {
    "A10": 125.0,
    "A100": 312.0,
    "A30": 165.0,
    "A40": 149.7,
    "A6000": 154.8,
    "B200": 2250.0,
    "GH200": 989.0,
    "H100": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H200": 989.0,
    "H200 NVL": 835.0,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "RTX 3090": 71.0,
    "RTX 4090": 165.2,
}


def peak_flops(device: str) -> float | None:
    """Peak bfloat16 FLOPS of the GPU that torch calls ``device``; None for a GPU that is not in the table."""
    words = device.replace("-", " ").split()
    matches = [name for name in BFLOAT16_TFLOPS if set(name.split()) <= set(words)]
    return BFLOAT16_TFLOPS[max(matches, key=len)] * 1e12 if matches else None
