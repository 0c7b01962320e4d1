"""Decoding steps whose tensors keep their shapes and places, so that a GPU can replay a step as one CUDA graph."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import Media
from mmgpt.models.packing import takes_pair_masks

from .kv_cache import EncodedImage, PrefixKV

SHORTEST = 256  # token positions that are allocated at least
WARM_UP = 3  # steps before a graph is captured, in which libraries allocate what they need
DYNAMIC_ROPE = ("dynamic", "longrope")  # their frequencies depend on the longest position, which the CPU looks at


def check_static(model: GatedCausalLM) -> None:
    """Raises a ValueError unless the language model can decode with a StaticDecodingBatch."""
    language, config = model.model, model.model.config
    window, most = getattr(config, "sliding_window", None), model.max_positions
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    reasons = {
        "its layers do not take a mask for each pair of tokens": not takes_pair_masks(language),
        "it takes no position_ids": not model.takes_positions,
        f"its layers attend to the last {window} tokens only": window is not None and (not most or window < most),
        f"its rotary embedding is {rope!r}": rope in DYNAMIC_ROPE,
        "it has experts": any(getattr(config, name, None) for name in ("num_experts", "num_local_experts")),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"a static cache is not possible with a model of type {config.model_type!r}: {reason}")


class StaticLayer(DynamicLayer):
    """A layer of a KV cache whose update writes each row's key and value at the row's own position.

    Args:
        keys, values: (B, heads, S, d), which are written to.
        positions: (B,), changed between the steps.
    """

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.positions = keys, values, positions

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Writes keys and values (B, heads, 1, d), and returns all S positions; other arguments are transformers'."""
        for tensor, new in ((self.keys, key_states), (self.values, value_states)):
            tensor.scatter_(2, self.positions[:, None, None, None].expand_as(new), new)
        return self.keys, self.values


class StaticDecodingBatch:
    """Same as DecodingBatch, except that the KV of all sequences is in tensors of fixed shapes and places.

    Each sequence begins at the first position of its row, and a mask hides the positions behind its end. A step is
    computed for a power of two of rows and of positions, so that there are few shapes of steps. On a GPU, the first
    step of each shape is captured as a CUDA graph, which the others replay: a GPU then waits for no Python.

    The tensors grow by doubling, and stay when all sequences have left.

    Args:
        model: in evaluation mode; one that `check_static` accepts.
        compile: options of `torch.compile` for the steps; True for its defaults, None or False for none.
    """

    def __init__(self, model: GatedCausalLM, compile: Mapping | bool | None = None):
        check_static(model)
        self.model = model
        self.lengths: list[int] = []
        self.images: list[EncodedImage | None] = []  # the last image of each sequence, see DecodingBatch
        # Keys and values (rows, heads, positions, d) of each layer, and (rows, heads, N, d) of images by gated layer.
        self._layers: list[tuple[Tensor, ...]] = []
        self._latents: dict[int, tuple[Tensor, ...]] = {}
        self._steps: dict[tuple[int, int, bool], Callable[[], Tensor]] = {}
        self._pool = None  # memory of all graphs, which are replayed one at a time
        self._forward = _forward
        if compile:
            self._forward = torch.compile(_forward, **({} if compile is True else compile))

    def add(self, prefixes: Sequence[PrefixKV], images: Sequence[Sequence[EncodedImage]]) -> None:
        """Appends sequences as the last rows, each with its images; the same one several times for its beams."""
        start = len(self.lengths)
        self.lengths += map(len, prefixes)
        self.images += [row[-1] if row else None for row in images]
        self._layers = self._layers or [tuple(x[:0, :, :0] for x in pair) for pair in prefixes[0].layers]
        self._reserve(len(self.lengths), max(self.lengths) + 1)
        for row, (prefix, image) in enumerate(zip(prefixes, self.images[start:], strict=True), start):
            _write(self._layers, row, prefix.layers)
            if image is not None:
                if not self._latents:
                    count = len(self._has_image)
                    self._latents = {
                        index: tuple(_enlarged(x[:0], count, x.shape[2]) for x in pair)
                        for index, pair in image.cache.items()
                    }
                _write(self._latents.values(), row, image.cache.values())
        self._set_images()

    def prefix(self, row: int) -> PrefixKV:
        """A copy of a sequence's keys and values."""
        index = slice(row, row + 1), slice(None), slice(self.lengths[row])
        return PrefixKV(tuple((keys[index], values[index]) for keys, values in self._layers)).copy()

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order; a row can be repeated."""
        if rows:
            self._reserve(len(rows), max(self.lengths) + 1)
            self._move(rows, slice(max(self.lengths)))
        self.lengths = [self.lengths[row] for row in rows]
        self.images = [self.images[row] for row in rows]
        self._set_images()

    def reorder(self, rows: Sequence[int], tokens: int) -> None:
        """Puts these rows in place of all rows; one that replaces another differs from it in its last `tokens` only."""
        self._move(rows, slice(max(min(self.lengths) - tokens, 0), max(self.lengths)))

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Logits (B, vocabulary) of the tokens that follow, after appending one token to each sequence."""
        count, longest = len(tokens), max(self.lengths) + 1
        self._reserve(count, longest)
        # Rows behind the last sequence compute a token at their first position, which nothing reads.
        padding = [0] * (self._inputs.shape[1] - count)
        self._inputs.copy_(torch.tensor([[*tokens, *padding], [*self.lengths, *padding]]))
        shape = _power_of_two(count), max(_power_of_two(longest), SHORTEST), any(self.images)
        if shape not in self._steps:
            self._steps[shape] = self._make_step(*shape)
        logits = self._steps[shape]()
        self.lengths = [length + 1 for length in self.lengths]
        # The next step writes its logits into the same tensor.
        return logits[:count].clone()

    def _make_step(self, rows: int, positions: int, with_images: bool) -> Callable[[], Tensor]:
        """A function that computes a step of this shape from `_inputs`, and returns its logits (rows, vocabulary)."""
        inputs, media = self._inputs[:, :rows], None
        cache = Cache(
            layers=[StaticLayer(*(x[:rows, :, :positions] for x in pair), inputs[1]) for pair in self._layers]
        )
        if with_images:
            latents = {index: tuple(x[:rows] for x in pair) for index, pair in self._latents.items()}
            nothing = self._has_image.new_zeros(rows, 1, 0) if self.model.image_attention == "next" else None
            media = Media(None, nothing, self._has_image[:rows], latents)
        forward = partial(self._forward, self.model, inputs, cache, media)
        if not inputs.is_cuda:
            return forward
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                forward()
        torch.cuda.current_stream().wait_stream(stream)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Threads of other requests may copy their inputs to the GPU in the meantime.
        with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
            logits = forward()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    def _reserve(self, rows: int, positions: int) -> None:
        """Makes room for so many rows and positions."""
        present, _, allocated, _ = self._layers[0][0].shape
        if rows <= present and positions <= allocated:
            return
        rows, positions = max(_power_of_two(rows), present), max(_power_of_two(positions), SHORTEST, allocated)
        # A pool whose graphs are all gone cannot be used again.
        self._steps.clear()
        self._pool = None
        self._layers = [tuple(_enlarged(x, rows, positions) for x in pair) for pair in self._layers]
        self._latents = {i: tuple(_enlarged(x, rows, x.shape[2]) for x in pair) for i, pair in self._latents.items()}
        device = self._layers[0][0].device
        with torch.inference_mode(False):
            self._inputs = torch.zeros(2, rows, dtype=torch.long, device=device)
            self._has_image = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        self._set_images()

    def _set_images(self) -> None:
        """Says which rows have an image."""
        self._has_image[: len(self.images), 0] = torch.tensor([image is not None for image in self.images])

    def _move(self, rows: Sequence[int], positions: slice) -> None:
        """Puts these rows in place of the first ones, at some positions of their keys and values."""
        moves = [(row, source) for row, source in enumerate(rows) if row != source]
        if moves:
            targets, sources = torch.tensor(moves, device=self._has_image.device).T
            for tensors, columns in ((self._layers, positions), (self._latents.values(), slice(None))):
                for tensor in (tensor for pair in tensors for tensor in pair):
                    tensor[targets, :, columns] = tensor[sources, :, columns]


def _forward(model: GatedCausalLM, inputs: Tensor, cache: Cache, media: Media | None) -> Tensor:
    """Logits (B, vocabulary) after a token of each row.

    Args:
        inputs: (2, B), the tokens and their positions.
        cache: of StaticLayers with these positions.
    """
    ids, positions = inputs[0][:, None], inputs[1][:, None]
    columns = torch.arange(cache.layers[0].keys.shape[2], device=ids.device)
    mask = torch.zeros(columns.shape, dtype=model.dtype, device=ids.device)
    mask = mask.masked_fill(columns > positions, torch.finfo(model.dtype).min)[:, None, None]
    out = model(ids, mask, positions, cache=cache, media=media, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1]


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least as large."""
    return 1 << (number - 1).bit_length()


def _enlarged(tensor: Tensor, rows: int, positions: int) -> Tensor:
    """A copy of a tensor (B, heads, S, d) with zeros behind its rows and positions: (rows, heads, positions, d)."""
    # The scheduler's thread is in inference mode, whose tensors other threads could not change.
    with torch.inference_mode(False):
        result = tensor.new_zeros(rows, tensor.shape[1], positions, tensor.shape[3])
        result[: tensor.shape[0], :, : tensor.shape[2]] = tensor
    return result


def _write(buffers: Iterable[tuple[Tensor, ...]], row: int, tensors: Iterable[tuple[Tensor, ...]]) -> None:
    """Writes tensors (1, heads, S, d) to the beginning of a row of others."""
    for targets, pair in zip(buffers, tensors, strict=True):
        for target, tensor in zip(targets, pair, strict=True):
            target[row, :, : tensor.shape[2]] = tensor[0]
