import pytest

from mmgpt.engine.gpu_peak_flops import peak_flops


@pytest.mark.parametrize(
    ("device", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA L40S", 362),
        ("NVIDIA RTX A6000", 154.8),
    ],
)
def test_peak_flops_of_the_device_names_of_torch(device, tera):
    assert peak_flops(device) == tera * 1e12


@pytest.mark.parametrize("device", ["", "NVIDIA A100X2000", "Tesla K80"])
def test_unknown_devices_have_no_peak_flops(device):
    assert peak_flops(device) is None
