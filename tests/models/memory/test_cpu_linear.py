"""Linear layers for answering on a CPU compute what plain layers with the same weights do."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import linear

from mmgpt.models.memory.cpu_linear import (
    INT8_ROWS,
    Int8Linear,
    PackedLinear,
    pack_linear_layers,
    unpack_linear_layers,
)

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the processor does not multiply bfloat16"
)


def layer(bias, dtype=torch.bfloat16, in_features=48, out_features=32):
    torch.manual_seed(0)
    return nn.Linear(in_features, out_features, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize(("bias", "in_features"), [(True, 48), (False, 48), (False, 33)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (INT8_ROWS, 1), (INT8_ROWS + 1, 1), (3, 40)])
def test_products_with_8_bits_are_those_of_the_rounded_weights(bias, in_features, shape):
    plain = layer(bias, in_features=in_features)
    rounded = Int8Linear(plain)
    assert rounded.quantized.dtype == torch.int8
    assert rounded.quantized.abs().amax(dim=1).tolist() == [127] * 32
    assert torch.allclose(rounded.weight.float(), plain.weight.float(), atol=plain.weight.abs().max().item() / 127)
    x = torch.randn(*shape, in_features, dtype=torch.bfloat16)
    expected = linear(x.float(), rounded.weight.float(), plain.bias.float() if bias else None)
    out = rounded(x)
    assert (out.shape, out.dtype) == (expected.shape, torch.bfloat16)
    assert torch.allclose(out.float(), expected, atol=0.02, rtol=0.02)


def test_a_row_of_zeros_stays_zero_and_a_float32_input_keeps_its_dtype():
    plain = layer(False)
    plain.weight[3] = 0
    out = Int8Linear(plain)(torch.randn(2, 48))
    assert out.dtype == torch.float32
    assert out[:, 3].tolist() == [0, 0]
    assert torch.isfinite(out).all()


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 64)])
def test_products_with_packed_weights_are_those_of_the_plain_layer(bias, shape):
    plain = layer(bias)
    packed = PackedLinear(plain)
    x = torch.randn(*shape, 48, dtype=torch.bfloat16)
    assert torch.allclose(packed(x).float(), plain(x).float(), atol=1e-2)
    assert torch.equal(packed.weight, plain.weight)
    assert sum(parameter.nbytes for parameter in packed.parameters()) == 2 * (48 * 32 + 32 * bias)


@pytest.mark.parametrize(
    ("kind", "in_features"), [(Int8Linear, 48), pytest.param(PackedLinear, 48, marks=needs_bfloat16), (Int8Linear, 33)]
)
@pytest.mark.parametrize("rows", [3, INT8_ROWS + 1])
def test_the_gradient_of_an_input_is_that_of_the_plain_layer(kind, in_features, rows):
    fast = kind(layer(True, in_features=in_features))
    x = torch.randn(rows, in_features, dtype=torch.bfloat16, requires_grad=True)
    out = fast(x)
    factors = torch.randn_like(out)
    out.backward(factors)
    assert torch.allclose(x.grad.float(), factors.float() @ fast.weight.float(), atol=0.03, rtol=0.03)
    with torch.no_grad():
        assert torch.allclose(fast(x).float(), out.float(), atol=0.02, rtol=0.02)


def test_few_rows_of_a_transposed_input_have_products_with_8_bits():
    rounded = Int8Linear(layer(True))
    x = torch.randn(48, 3, dtype=torch.bfloat16).T
    assert torch.equal(rounded(x), rounded(x.contiguous()))


@needs_bfloat16
def test_layers_that_share_their_weights_or_have_lora_are_not_packed():
    head = layer(False, in_features=48, out_features=8)
    embedding = nn.Embedding(8, 48, dtype=torch.bfloat16)
    head.weight = embedding.weight
    model = nn.ModuleDict(dict(embedding=embedding, head=head, plain=layer(True), float32=layer(True, torch.float32)))
    model["tuned"] = get_peft_model(nn.ModuleDict(dict(q=layer(False))), LoraConfig(target_modules=["q"]))
    pack_linear_layers(model)
    assert [name for name, module in model.named_modules() if isinstance(module, PackedLinear)] == ["plain"]


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
def test_unpacked_layers_are_what_they_were(bias):
    model = nn.Sequential(layer(bias), nn.Sequential(layer(bias, in_features=32)))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    pack_linear_layers(model)
    assert isinstance(model[1][0], PackedLinear)
    unpack_linear_layers(model)
    assert [type(module) for module in model.modules()].count(nn.Linear) == 2
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    x = torch.randn(3, 48, dtype=torch.bfloat16, requires_grad=True)
    assert torch.equal(model(x), nn.functional.linear(linear(x, *model[0].parameters()), *model[1][0].parameters()))
