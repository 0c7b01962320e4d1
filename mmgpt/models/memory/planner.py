"""Memory planner: bytes of weights, optimizer states, activations and gradients of a training, without any weights."""

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
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.vision.base import encode_images

from .quantization import BYTES, decoder_layers, quantized_parameters
from .sizes import image_side

# The AdamW of bitsandbytes keeps the states of tensors with fewer elements in float32 (its `min_8bit_size`).
SMALLEST_IN_8_BITS = 4096


class Sizes(NamedTuple):
    """Sizes of a batch: B rows of L tokens with T images each.

    `packed` rows hold several samples; with `features` the batch holds cached features in the place of images.
    `image_size` is height and width of the images in pixels; None: as the image encoder has it. With `tiles`, an image
    is cut into so many. Only `supervised` tokens of each row have logits; None: all but the first.
    """

    rows: int
    length: int
    images: int
    packed: bool = False
    features: bool = False
    image_size: tuple[int, int] | None = None
    tiles: int = 1
    supervised: int | None = None


class Plan(NamedTuple):
    """Peak memory of one process of a training, in bytes.

    Attributes:
        weights: weights by kind, such as 'frozen bfloat16'.
        optimizer: the optimizer's states.
        step: activations and gradients at their peak in forward and backward. The optimizer's step takes no more: on a
            GPU it is fused (see TrainableOptimWrapperConstructor), without temporary tensors.
        gathered: weights gathered from other processes, and buffers of gradients that are exchanged.
    """

    weights: dict[str, float]
    optimizer: float
    step: float
    gathered: float

    @property
    def total(self) -> float:
        """Peak of all together."""
        return sum(self.weights.values()) + self.optimizer + self.step + self.gathered


class LiveBytes(TorchDispatchMode):
    """Context manager that counts the bytes of live tensors, `now` and at their `peak`; fake tensors count too.

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
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in self._counted:
                self._counted.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

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
        ValueError: the sizes of this optimizer's states are unknown.
    """
    # 1. Weights by kind. A product expands a quantized matrix to its dtype, at most the largest one at a time.
    language = flamingo_of(model).language
    quantized = {id(p) for p in quantized_parameters(language.model)} if precision else set()
    weights, expanded = {}, 0.0
    for p in [*model.parameters(), *model.buffers()]:
        kind, size = f"{'trainable' if p.requires_grad else 'frozen'} {str(p.dtype).removeprefix('torch.')}", p.nbytes
        if id(p) in quantized:
            kind, size, expanded = f"frozen {precision}", p.numel() * BYTES[precision], max(expanded, p.nbytes)
        weights[kind] = weights.get(kind, 0) + size

    # 2. Gradients, optimizer states, and the step. Each process holds 1 / shards of all that is sharded.
    trainable = [p for p in model.parameters() if p.requires_grad]
    states = _optimizer_bytes(optimizer, trainable)
    gradients, shards = sum(p.nbytes for p in trainable), processes if sharded else 1
    gradients_stay = accumulation > 1 or sharded
    step = step_peak(model, sizes, keeps_gradients=not gradients_stay) + expanded
    step += gradients / shards if gradients_stay else 0

    # 3. Copies for the exchange between processes: DDP has buckets of gradients. FSDP2 gathers the weights of two
    # decoder layers or gated blocks, the present and the next, and all that is outside of them.
    gathered = 0
    if processes > 1 and not sharded:
        gathered = gradients
    elif processes > 1:
        units = [*decoder_layers(language), *(layer.gated for layer in gated_layers(language))]
        unit_bytes = [sum(p.nbytes for p in unit.parameters()) for unit in units]
        gathered = 2 * max(unit_bytes) + sum(p.nbytes for p in model.parameters()) - sum(unit_bytes)
    weights = {kind: size / shards for kind, size in weights.items()}
    return Plan(weights, states / shards, step, gathered)


def _optimizer_bytes(name: str, trainable: list[Tensor]) -> float:
    """Bytes of the states of an optimizer."""
    if name == "AdamW":  # two averages
        return 2 * sum(p.nbytes for p in trainable)
    if name in ("AdamW8bit", "PagedAdamW8bit"):
        # The two states take a byte an element each, with a scale for 256 elements.
        in_8_bits = sum(p.numel() * (2 + 8 / 256) for p in trainable if p.numel() >= SMALLEST_IN_8_BITS)
        return in_8_bits + sum(8 * p.numel() for p in trainable if p.numel() < SMALLEST_IN_8_BITS)
    raise ValueError(f"optimizer {name!r}: unknown sizes of its states; choose AdamW, AdamW8bit or PagedAdamW8bit")


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
    flamingo_of(model).takes_features = sizes.features
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
    """Batch of these sizes; under a FakeTensorMode, its images have no values."""
    flamingo, (rows, length, images, packed, features, image_size, tiles, supervised) = flamingo_of(model), sizes
    ids = torch.full((rows, length), flamingo.tokenizer.eos_token_id)
    ids[:, 1 : 1 + images] = flamingo.language.image_token_id
    labels = ids.clone()
    if supervised is not None:
        labels[:, : length - supervised] = IGNORE_INDEX
    batch = dict(input_ids=ids, labels=labels, sources=["text"] * rows)
    if packed:
        batch["sample_ids"] = torch.arange(rows)[:, None].expand(-1, length)
    else:
        batch["attention_mask"] = torch.ones_like(ids)
    if images:
        shape = (rows, images, 3, *(image_size or image_side(flamingo.vision)))
        frames = ()
        if tiles > 1:
            frames = (1 + tiles,)  # the whole image beside its tiles
            batch["tile_ids"] = torch.arange(1 + tiles).expand(rows, images, -1)
        with mode or torch.device("cpu"):
            batch["pixels"] = torch.zeros(*shape[:2], *frames, *shape[2:])
            if features:
                one = encode_images(flamingo.vision, torch.zeros(1, *shape[2:]), takes_features=False)
                batch["pixels"] = torch.zeros(rows, images, *frames, *one.shape[-2:], dtype=torch.float16)
        batch["image_counts"] = torch.full((rows,), images)
    return batch
