"""What a training step of a model without weights takes: bytes of weights, optimizer, and of all that lives at once."""

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

# An AdamW of bitsandbytes keeps tensors of fewer elements in float32 (its `min_8bit_size`).
SMALLEST_IN_8_BITS = 4096


class Sizes(NamedTuple):
    """A training step: B rows of L tokens with T images each; packed: rows hold several samples."""

    rows: int
    length: int
    images: int
    packed: bool = False


class Plan(NamedTuple):
    """Bytes that one process of a training takes at most.

    weights: by kind ('frozen bfloat16'). optimizer: its states. step: activations and gradients at the worst moment of
    forward and backward. update: gradients and what the optimizer's step needs beside them. gathered: weights that
    other processes hold, and buffers of gradients that are exchanged.
    """

    weights: dict[str, float]
    optimizer: float
    step: float
    update: float
    gathered: float

    @property
    def total(self) -> float:
        """The peak."""
        return sum(self.weights.values()) + self.optimizer + max(self.step, self.update) + self.gathered


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made within it that are alive, `now` and at `peak`; fake ones too.

    `known` are tensors that were there before and do not count.
    """

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: Mapping | None = None):
        """Does the operation, and counts what it made."""
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

    def _forget(self, place: int, size: int) -> None:
        self._counted.discard(place)
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
    """The plan of a model that `build_without_weights` made; its tensors become fake ones.

    Args:
        optimizer: its name in the config.
        precision: of the language model's own matrices, 'int8' or 'int4' (a model without weights is not quantized).
        accumulation: batches in a step of the optimizer; with several the gradients are there all the time.
        processes: number of processes, one per GPU.
        sharded: whether they share weights, gradients and states (FSDP2), instead of holding all of them (DDP).

    Raises:
        ValueError: an optimizer whose states are not known here.
    """
    flamingo = flamingo_of(model)
    weights, widest = _weights(flamingo, model, precision)
    trained = [p for p in model.parameters() if p.requires_grad]
    states, spare = _optimizer_bytes(optimizer, trained)
    gradients = sum(p.nbytes for p in trained)
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
    """Bytes by kind, and those of the largest quantized matrix, which is computed with in its own dtype."""
    small = {id(p) for p in quantized_parameters(flamingo.language.model)} if precision else set()
    kinds, widest = {}, 0.0
    for p in [*model.parameters(), *model.buffers()]:
        kind, size = f"{'trained' if p.requires_grad else 'frozen'} {str(p.dtype).removeprefix('torch.')}", p.nbytes
        if id(p) in small:
            kind, size, widest = f"frozen {precision}", p.numel() * BYTES[precision], max(widest, p.nbytes)
        kinds[kind] = kinds.get(kind, 0) + size
    return kinds, widest


def _optimizer_bytes(name: str, trained: list[Tensor]) -> tuple[float, float]:
    """Bytes of the states of an optimizer, and of what its step makes for a moment."""
    whole = sum(p.nbytes for p in trained)
    if name == "AdamW":
        # Two averages; the root of one is made for all tensors at once.
        return 2 * whole, whole
    if name in ("AdamW8bit", "PagedAdamW8bit"):
        # Two bytes an element, and two scales for 256 of them.
        small = sum(p.numel() * (2 + 8 / 256) for p in trained if p.numel() >= SMALLEST_IN_8_BITS)
        return small + sum(8 * p.numel() for p in trained if p.numel() < SMALLEST_IN_8_BITS), 0
    raise ValueError(f"optimizer {name!r}: the states of AdamW, AdamW8bit and PagedAdamW8bit are known here")


def _gathered(flamingo: nn.Module, model: nn.Module) -> float:
    """Bytes that a process holds unshared: of two decoder layers or gated blocks, at work and next, and of the rest."""
    language = flamingo.language
    units = [*decoder_layers(language), *(layer.gated for layer in gated_layers(language))]
    sizes = [sum(p.nbytes for p in unit.parameters()) for unit in units]
    return 2 * max(sizes) + sum(p.nbytes for p in model.parameters()) - sum(sizes)


def step_peak(model: nn.Module, sizes: Sizes, keeps_gradients: bool = True) -> int:
    """The most bytes that live at once in forward and backward, beside the weights; nothing is computed.

    It runs the model's own training step on fake tensors, which have a shape and no values. Integers (tokens, places)
    are real ones, for what the model decides by them.

    Args:
        keeps_gradients: False forgets each trained tensor's gradient as soon as it is complete.
    """
    # On the CPU attention keeps as little as on a GPU; on the meta device it would keep scores of all pairs of tokens.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    if next(model.parameters()).is_meta:
        with fake:
            model.to_empty(device="cpu")
    batch = example(model, sizes, fake)
    hooks = []
    if not keeps_gradients:
        trained = [p for p in model.parameters() if p.requires_grad]
        hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in trained]
    known = [*model.parameters(), *model.buffers(), *(v for v in batch.values() if isinstance(v, Tensor))]
    with LiveBytes(known) as live:
        sum(model.train()(**batch, mode="loss").values()).backward()
    model.zero_grad()
    for hook in hooks:
        hook.remove()
    return live.peak


def example(model: nn.Module, sizes: Sizes, mode: FakeTensorMode | None = None) -> dict:
    """A batch in which every token but the first is learned; its images have no values within a FakeTensorMode."""
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
