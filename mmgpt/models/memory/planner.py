"""Planned memory of a training step: bytes of weights, optimizer states, activations and gradients, without weights."""

import weakref
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmgpt.models.gated_lm import gated_layers
from mmgpt.models.lora import flamingo_of

from .quantization import BYTES, decoder_layers, quantized_parameters
from .sizes import image_side

# The AdamW of bitsandbytes keeps the states of tensors with fewer elements in float32 (its `min_8bit_size`).
SMALLEST_IN_8_BITS = 4096


class Sizes(NamedTuple):
    """Sizes of a batch: B rows of L tokens with T images each; `packed` rows hold several samples."""

    rows: int
    length: int
    images: int
    packed: bool = False


class Plan(NamedTuple):
    """Peak memory of one process of a training, in bytes.

    Attributes:
        weights: weights by kind, such as 'frozen bfloat16'.
        optimizer: the optimizer's states.
        step: activations and gradients at their peak in forward and backward.
        update: gradients, and the temporary tensors of the optimizer's step.
        gathered: weights gathered from other processes, and buffers of gradients that are exchanged.
    """

    weights: dict[str, float]
    optimizer: float
    step: float
    update: float
    gathered: float

    @property
    def total(self) -> float:
        """Peak of all together."""
        return sum(self.weights.values()) + self.optimizer + max(self.step, self.update) + self.gathered


class LiveBytes(TorchDispatchMode):
    """Context manager that counts the bytes of living tensors, `now` and at their `peak`; fake tensors count too.

    Args:
        before: tensors that exist already and do not count.
    """

    def __init__(self, before: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: Mapping | None = None):
        """Computes an operation, and counts its results."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._counted:
            return
        self._counted.add(storage._cdata)
        self.now += storage.nbytes()
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, address: int, size: int) -> None:
        self._counted.discard(address)
        self.now -= size


def plan(
    model: nn.Module,
    sizes: Sizes,
    optimizer: str = "AdamW",
    precision: str | None = None,
    accumulation: int = 1,
    processes: int = 1,
    sharded: bool = False,
) -> Plan:
    """Plan of a training of a model from `build_without_weights`, whose tensors become fake ones.

    Args:
        sizes: of a batch.
        optimizer: type of the optimizer in the config.
        precision: of the language model's own matrices, 'int8' or 'int4' (a model without weights is not quantized).
        accumulation: batches in a step of the optimizer; with several, the gradients exist all the time.
        processes: number of processes, one per GPU.
        sharded: whether they share weights, gradients and states (FSDP2), instead of holding all of them (DDP).

    Raises:
        ValueError: the sizes of this optimizer's states are not known here.
    """
    flamingo = flamingo_of(model)
    weights, widest = _weights(flamingo, model, precision)
    trainable = [p for p in model.parameters() if p.requires_grad]
    states, spare = _optimizer_bytes(optimizer, trainable)
    gradients = sum(p.nbytes for p in trainable)
    whole = accumulation > 1 or sharded
    step = step_peak(model, sizes, keeps_gradients=not whole) + widest
    share = processes if sharded else 1
    step += gradients / share if whole else 0
    # DDP copies gradients into the buckets that it exchanges.
    gathered = gradients if processes > 1 and not sharded else 0
    if sharded and processes > 1:
        gathered = _gathered(flamingo, model)
    shares = {kind: size / share for kind, size in weights.items()}
    return Plan(shares, states / share, step, (gradients + spare) / share, gathered)


def _weights(flamingo: nn.Module, model: nn.Module, precision: str | None) -> tuple[dict[str, float], float]:
    """Bytes by kind, and bytes of the largest quantized matrix, which a product expands to its dtype."""
    small = {id(p) for p in quantized_parameters(flamingo.language.model)} if precision else set()
    kinds, widest = {}, 0.0
    for p in [*model.parameters(), *model.buffers()]:
        kind, size = f"{'trained' if p.requires_grad else 'frozen'} {str(p.dtype).removeprefix('torch.')}", p.nbytes
        if id(p) in small:
            kind, size, widest = f"frozen {precision}", p.numel() * BYTES[precision], max(widest, p.nbytes)
        kinds[kind] = kinds.get(kind, 0) + size
    return kinds, widest


def _optimizer_bytes(name: str, trainable: list[Tensor]) -> tuple[float, float]:
    """Bytes of the states of an optimizer, and of the temporary tensors of its step."""
    whole = sum(p.nbytes for p in trainable)
    if name == "AdamW":
        # It has two averages, and computes the root of one for all tensors at once.
        return 2 * whole, whole
    if name in ("AdamW8bit", "PagedAdamW8bit"):
        # Its states take two bytes an element, and two scales for 256 elements.
        small = sum(p.numel() * (2 + 8 / 256) for p in trainable if p.numel() >= SMALLEST_IN_8_BITS)
        return small + sum(8 * p.numel() for p in trainable if p.numel() < SMALLEST_IN_8_BITS), 0
    raise ValueError(
        f"optimizer {name!r}: the states of AdamW, AdamW8bit and PagedAdamW8bit are known here; choose one"
    )


def _gathered(flamingo: nn.Module, model: nn.Module) -> float:
    """Bytes that a process holds whole: two decoder layers or gated blocks, the present and the next, and the rest."""
    language = flamingo.language
    units = [*decoder_layers(language), *(layer.gated for layer in gated_layers(language))]
    sizes = [sum(p.nbytes for p in unit.parameters()) for unit in units]
    return 2 * max(sizes) + sum(p.nbytes for p in model.parameters()) - sum(sizes)


def step_peak(model: nn.Module, sizes: Sizes, keeps_gradients: bool = True) -> int:
    """Peak of the bytes that forward and backward take beside the weights; nothing is computed.

    The model's own training step runs on fake tensors, which have a shape and no values. Integers such as tokens are
    real, since the model decides by their values.

    Args:
        keeps_gradients: False drops each gradient as soon as it is complete.
    """
    # On the CPU attention stores as little as on a GPU; on the meta device it would store the scores of all pairs.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    if next(model.parameters()).is_meta:
        with fake:
            model.to_empty(device="cpu")
    batch = example(model, sizes, fake)
    hooks = []
    if not keeps_gradients:
        trainable = [p for p in model.parameters() if p.requires_grad]
        hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in trainable]
    before = [*model.parameters(), *model.buffers(), *(v for v in batch.values() if isinstance(v, Tensor))]
    with LiveBytes(before) as live:
        sum(model.train()(**batch, mode="loss").values()).backward()
    model.zero_grad()
    for hook in hooks:
        hook.remove()
    return live.peak


def example(model: nn.Module, sizes: Sizes, mode: FakeTensorMode | None = None) -> dict:
    """Batch of which every token but the first is a label; under a FakeTensorMode, its images have no values."""
    flamingo, (rows, length, images, packed) = flamingo_of(model), sizes
    ids = torch.full((rows, length), flamingo.tokenizer.eos_token_id)
    ids[:, 1 : 1 + images] = flamingo.language.image_token_id
    batch = dict(input_ids=ids, labels=ids.clone(), sources=["text"] * rows)
    if packed:
        batch["samples"] = torch.arange(rows)[:, None].expand(-1, length)
    else:
        batch["attention_mask"] = torch.ones_like(ids)
    if images:
        shape = (rows, images, 3, *image_side(flamingo.vision))
        with mode or torch.device("cpu"):
            batch["pixels"] = torch.zeros(shape)
        batch["image_counts"] = torch.full((rows,), images)
    return batch
