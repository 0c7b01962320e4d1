"""What GPUs can do at most, by their makers' data sheets."""

# Dense products of bfloat16 matrices summed in float32, 1e12 operations a second. Sheets often give twice as much: for
# matrices with half of their values zero. The names are parts of what torch.cuda.get_device_name says.
BFLOAT16 = {
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
    """Operations a second of the GPU that torch calls ``device``; None where its data sheet is not in the list."""
    words = device.replace("-", " ").split()
    known = [name for name in BFLOAT16 if set(name.split()) <= set(words)]
    return BFLOAT16[max(known, key=len)] * 1e12 if known else None
