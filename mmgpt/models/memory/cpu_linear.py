"""Linear layers for answering on a CPU: a product of few rows waits for the weights, so they are small or packed.

The operators are those of torch's compiler (inductor) and of torchao, which torch has no public module for.
"""

from collections.abc import Iterator

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

# Up to so many rows, the product with 8-bit weights takes less time than that with weights that are widened first.
INT8_ROWS = 32
# torch writes its kernels for inputs in blocks of this many; others take the plain product.
INT8_MULTIPLE = 16


class Int8Linear(nn.Module):
    """A linear layer whose weights have 8 bits and a scale for each output, without gradients of the weights.

    Weights are rounded to the nearest of 255 steps up to the largest of their row; inputs are not rounded to 8 bits.

    Attributes:
        quantized: (out, in) int8.
        scales: (out,) bfloat16.
        bias: (out,) or None.

    Args:
        linear: the layer with the weights.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.data.float()
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
        quantized = (weight / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.quantized = nn.Parameter(quantized, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """The rounded weights (out, in), bfloat16."""
        return self.quantized.to(self.scales.dtype) * self.scales[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        few = x.numel() <= INT8_ROWS * self.in_features and self.in_features % INT8_MULTIPLE == 0
        if few and not needs_gradient(x):
            rows = x.reshape(-1, self.in_features).to(self.scales.dtype).contiguous()
            out = torch._weight_int8pack_mm(rows, self.quantized, self.scales)
            out = out.to(x.dtype).view(*x.shape[:-1], self.out_features)
        else:
            out = F.linear(x, self.quantized.to(x.dtype)) * self.scales.to(x.dtype)
        return out if self.bias is None else out + self.bias


class PackedLinear(nn.Module):
    """A linear layer of bfloat16 weights in the memory layout of oneDNN's products, without gradients of the weights.

    The result is that of nn.Linear, up to rounding; there, each call brings the weights into this layout.

    Attributes:
        packed: (out, in) bfloat16, in a layout that only oneDNN reads.
        bias: (out,) or None.

    Args:
        linear: the layer with the weights.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """The weights (out, in), unpacked."""
        return self.packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        if needs_gradient(x):
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd records what is computed of x: the operators of these layers have no gradient."""
    return torch.is_grad_enabled() and x.requires_grad


def pack_linear_layers(model: nn.Module) -> None:
    """Replaces the bfloat16 linear layers of a model on a CPU that multiplies bfloat16 by PackedLinear, in place.

    Layers whose weights are those of an embedding, too, and layers with LoRA beside them stay.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return
    for parent, name, linear in list(plain_linear_layers(model)):
        if linear.weight.dtype == torch.bfloat16 and linear.weight.device.type == "cpu":
            setattr(parent, name, PackedLinear(linear))


def unpack_linear_layers(model: nn.Module) -> None:
    """Puts plain layers in the place of the PackedLinear ones, whose weights torch's compiler does not take."""
    for parent in list(model.modules()):
        for name, packed in list(parent.named_children()):
            if isinstance(packed, PackedLinear):
                plain = nn.Linear(packed.in_features, packed.out_features, bias=False, device="meta")
                plain.weight, plain.bias = nn.Parameter(packed.weight, requires_grad=False), packed.bias
                setattr(parent, name, plain)


def plain_linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The nn.Linear modules that share no weight with an embedding and are no part of LoRA's layers.

    Each comes with its parent module and its name there.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tuned = {part for layer in model.modules() if isinstance(layer, BaseTunerLayer) for part in layer.modules()}
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear and id(child.weight) not in embeddings and child not in tuned:
                yield parent, name, child
