"""A frozen causal language model with gated cross-attention blocks before its layers (arXiv:2204.14198, section 2.2).

The images travel as an argument (`Media`) through the language model's own keyword arguments: no layer keeps state.
Some models (MPT, BLOOM, GPT-J) do not pass keyword arguments on; their gated layers take the images from the current
`ForwardCall`, and pass them to their block as an argument all the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.registry import MODELS

from .attention import MaskedCrossAttention, computed_as, feed_forward
from .dtypes import float_dtype
from .generation_files import as_ids
from .media import IMAGE_ATTENTION, Media, apply_block, media_of
from .packing import takes_positions
from .transformers_names import CACHE, cache_argument


@MODELS.register_module()
class GatedCrossAttentionBlock(GradientCheckpointingLayer):
    """Cross-attention to image latents and a feed-forward, each scaled by tanh of a trained gate (paper, figure 4).

    Args:
        dim: width of the hidden states.
        dim_visual: D, the width of the latents.
        index: of the decoder layer that the block stands before.
        dim_head, heads: width of a head, and their number.
        ff_mult: width of the feed-forward, as a multiple of `dim`.
        gate_init: the gates at first; at 0 the block changes nothing.
        out_gain: factor of the initial weights of `attn.to_out`. Hidden states grow with depth (SmolLM2-135M: from 0.1
            after the embedding to 26 before the last layer, as root mean square), and a new block whose output is
            small beside them learns late.
    """

    def __init__(
        self,
        dim: int,
        dim_visual: int,
        index: int,
        dim_head: int = 64,
        heads: int = 8,
        ff_mult: int = 4,
        gate_init: float = 0.0,
        out_gain: float = 1.0,
    ):
        super().__init__()
        self.attn = MaskedCrossAttention(dim, dim_visual, index, dim_head, heads)
        with torch.no_grad():
            self.attn.to_out.weight *= out_gain
        self.attn_gate = nn.Parameter(torch.full((1,), float(gate_init)))
        self.ff = feed_forward(dim, ff_mult)
        self.ff_gate = nn.Parameter(torch.full((1,), float(gate_init)))

    def forward(self, hidden_states: Tensor, media: Media) -> Tensor:
        """hidden_states (B, L, dim) -> (B, L, dim); tokens of samples without an image stay as they are."""

        def block(rows: Tensor) -> Tensor:
            with computed_as(rows, self.attn_gate):
                x = rows + self.attn(rows, media) * self.attn_gate.tanh()
                return (x + self.ff(x) * self.ff_gate.tanh()).to(rows.dtype)

        return apply_block(block, hidden_states, media)

    def keys_values(self, media: Media) -> tuple[Tensor, Tensor]:
        """Keys and values of the latents, each (B, heads, T * N, d), those of the cache where it has them."""
        return self.attn.keys_values(media)


@dataclass
class ForwardCall:
    """One forward call of a GatedCausalLM: its media, and the indices of the layers that have not taken them yet."""

    media: Media | None
    waiting: set[int]


# Set for the length of one forward call, in the thread that makes it.
_CALL: ContextVar[ForwardCall | None] = ContextVar("call", default=None)


@contextmanager
def forward_call(media: Media | None, layers: Sequence[int]) -> Iterator[None]:
    """Context manager in which each gated layer with one of these indices may take the media once.

    Raises:
        ValueError: only some of the layers have taken the media.
    """
    call = ForwardCall(media, set(layers))
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)
    if 0 < len(call.waiting) < len(layers):
        raise ValueError(
            f"the language model did not call its layers {sorted(call.waiting)}, so that images never reach them"
        )


class GatedDecoderLayer(nn.Module):
    """A gated block followed by the language model's own decoder layer, the one with this index."""

    def __init__(self, gated: nn.Module, decoder: nn.Module, index: int):
        super().__init__()
        self.gated = gated
        self.decoder = decoder
        self.index = index

    def __getattr__(self, name: str):
        # Some models read attributes of their layers (attention_type, layer_idx), which are the inner layer's.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("decoder"), name)

    def forward(self, hidden_states: Tensor, *args, **kwargs):
        """Same as the inner layer's, whose arguments these are, after the block; `media` may be among the keywords."""
        if "media" in kwargs:
            media = kwargs.pop("media")
        else:
            call = _CALL.get()
            if call is None or self.index not in call.waiting:
                raise ValueError(
                    f"{type(self.decoder).__name__} {self.index} was called without its media, so that images would "
                    "never reach it: its model does not pass keyword arguments on, and is compiled, or calls it twice, "
                    "or outside GatedCausalLM"
                )
            call.waiting.remove(self.index)
            media = call.media
        if media is not None:
            hidden_states = self.gated(hidden_states, media)
        return self.decoder(hidden_states, *args, **kwargs)


def gated_layers(model: nn.Module) -> list[GatedDecoderLayer]:
    """The decoder layers of a model that have a gated block before them."""
    return [module for module in model.modules() if isinstance(module, GatedDecoderLayer)]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The language model's list of decoder layers, found by its structure; ValueError when there is not exactly one."""
    count = model.config.num_hidden_layers
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
    ]
    if len(lists) != 1:
        raise ValueError(f"{type(model).__name__}: {len(lists)} lists of {count} decoder layers found, expected one")
    return lists[0]


@MODELS.register_module()
class GatedCausalLM(PreTrainedModel, GenerationMixin):
    """Hugging Face causal language model whose tokens attend to images by gated blocks before some of its layers.

    1. `media`: latents (B, T, N, D) and input_ids (B, L) -> the `Media` that say which latents each token attends to.
    2. The language model's own forward hands the media to its layers.
    3. Each gated layer: hidden states (B, L, dim) -> gated block -> decoder layer -> (B, L, dim).
    4. The language model's own head: logits (B, L, vocabulary), or those that `hidden_states` leaves to its caller.

    Args:
        model: the language model; every `every_n_layers`-th decoder layer is wrapped (the published models: 4).
        dim_visual: D, the width of the latents.
        image_token_id: id of `<image>`.
        image_attention: which image a token attends to, 'latest' or 'next' (see `attended_images`).
        block: builds a gated block from `dim`, `dim_visual` and `index` (see GatedCrossAttentionBlock).
        dtype: of the gated blocks' weights, 'float32' where they are trained beside a bfloat16 language model, in whose
            dtype they compute all the same; None: the language model's.

    Raises:
        ValueError: unknown `image_attention` or `dtype`, a number of layers that the model does not have, or decoder
            layers that are not found.
    """

    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True

    def __init__(
        self,
        model: PreTrainedModel,
        dim_visual: int,
        image_token_id: int,
        every_n_layers: int = 4,
        image_attention: str = "latest",
        block: Callable[..., nn.Module] = GatedCrossAttentionBlock,
        dtype: str | None = None,
    ):
        if image_attention not in IMAGE_ATTENTION:
            raise ValueError(f"image_attention={image_attention!r}: choose one of {', '.join(IMAGE_ATTENTION)}")
        gated_dtype = float_dtype(dtype, "gated.dtype") if dtype else model.dtype
        super().__init__(model.config)
        self.image_token_id, self.image_attention = image_token_id, image_attention
        self.takes_positions, self.cache_argument = takes_positions(model), cache_argument(model.forward)
        layers = decoder_layers(model)
        name = next(name for name, module in model.named_modules() if module is layers)
        # The module that calls the decoder layers and returns hidden states.
        self.stack = f"model.{name}".rpartition(".")[0]
        if not 1 <= every_n_layers <= len(layers):
            raise ValueError(f"every_n_layers={every_n_layers} for a language model of {len(layers)} layers")
        dim = model.get_input_embeddings().weight.shape[1]
        self.gated_layers = range(every_n_layers - 1, len(layers), every_n_layers)
        for index in self.gated_layers:
            gated = block(dim=dim, dim_visual=dim_visual, index=index)
            gated.to(gated_dtype)
            layers[index] = GatedDecoderLayer(gated, layers[index], index)
        self.model = model
        # Only special tokens are taken over: other settings of a base, such as a repetition penalty, would act on every
        # answer.
        base = model.generation_config
        ids = {name: getattr(base, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        self.generation_config = GenerationConfig(**ids)

    @property
    def ends(self) -> list[int]:
        """Ids of the tokens that end an answer, unless generation arguments name others."""
        return as_ids(self.generation_config.eos_token_id)

    @property
    def max_positions(self) -> int | None:
        """Largest number of tokens that the language model takes, prompt and answer together; None: any number."""
        config = self.model.config.get_text_config()
        names = ("max_position_embeddings", "max_seq_len")  # MPT has the latter.
        return next((getattr(config, name) for name in names if getattr(config, name, None)), None)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """True: the language model inside has chosen how its experts, if it has any, are computed."""
        return True

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: components come with their weights."""

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding of the language model."""
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The output head of the language model."""
        return self.model.get_output_embeddings()

    def media(
        self, input_ids: Tensor, features: Tensor | None, image_counts: Tensor | None, sample_ids: Tensor | None = None
    ) -> Media | None:
        """The `Media` of a batch of input_ids (B, L), None without images; other arguments are those of `media_of`."""
        if features is None:
            return None
        is_image = input_ids == self.image_token_id
        return media_of(features.to(self.dtype), is_image, image_counts, self.image_attention, sample_ids)

    def image_keys_values(self, latents: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values of images, latents (T, N, dim_visual), by layer index: each (T, heads, N, d)."""
        media = Media(latents[:, None].to(self.dtype), None, None)
        return {layer.index: layer.gated.keys_values(media) for layer in gated_layers(self)}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        media: Media | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ):
        """The output of the language model's forward, with logits (B, L, vocabulary); further keywords are its own.

        `position_ids` (B, L) are dropped for a model that takes none, since `generate` makes them for every model. The
        KV cache may come under either of its names, and reaches the language model under the one that it takes.
        """
        kwargs.update(input_ids=input_ids, attention_mask=attention_mask, media=media)
        kwargs[self.cache_argument] = past_key_values if cache is None else cache
        if position_ids is not None and self.takes_positions:
            kwargs["position_ids"] = position_ids
        # torch.compile does not trace context variables: there the keyword is the only way, and the fast one.
        if torch.compiler.is_compiling():
            return self.model(**kwargs)
        with forward_call(media, self.gated_layers):
            return self.model(**kwargs)

    def hidden_states(
        self, input_ids: Tensor, media: Media | None = None, **text
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The last hidden states (B, L, dim), and the output head: states (K, dim) -> logits (K, vocabulary).

        Many families do more in their head than multiply by its weights (Gemma 2 limits its logits, Cohere and Granite
        scale them). So both are the model's own forward: once without any logits, on copies of the modules above the
        stack of decoder layers, which record what the stack returns; then with states in place of that stack.

        Args:
            input_ids, media, text: arguments of `forward`.
        """
        stack = _RecordingStack(self.get_submodule(self.stack))
        no_tokens = torch.empty(0, dtype=torch.long, device=input_ids.device)
        body = _with_submodule(self, self.stack, stack)
        body(input_ids, media=media, use_cache=False, logits_to_keep=no_tokens, **text)
        head = _with_submodule(self, self.stack, _StatesAsStack(stack))

        def logits(states: Tensor) -> Tensor:
            return head(inputs_embeds=states[None], use_cache=False).logits[0]

        return stack.output.last_hidden_state, logits

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        media_features: Tensor | None = None,
        image_counts: Tensor | None = None,
        media_cache: dict | None = None,
        **kwargs,
    ) -> dict:
        """Same as transformers', whose keywords these are; the media mask is cut to the tokens that are computed."""
        prepare = self.model.prepare_inputs_for_generation
        if CACHE in kwargs:
            kwargs[cache_argument(prepare)] = kwargs.pop(CACHE)
        inputs = prepare(input_ids, **kwargs)
        media = self.media(input_ids, media_features, image_counts)
        if media is not None:
            new = inputs["input_ids"].shape[1]
            media = media._replace(mask=media.mask[:, -new:], cache=media_cache)
        return {**inputs, "media": media}

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, media_features: Tensor | None = None, use_cache: bool = True, **kwargs
    ) -> Tensor:
        """transformers' generate (and its keywords); the images' keys and values are projected once per call."""
        return super().generate(
            input_ids,
            media_features=media_features,
            media_cache={} if use_cache else None,
            # MPT's own default is to compute the whole sequence again for every token.
            use_cache=use_cache,
            # Processes that share the weights do not wait for each other's answers: they gather all weights before.
            synced_gpus=False,
            **kwargs,
        )


def _with_submodule(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """A copy of a model that shares everything with it, except for the submodule at a path."""
    name, _, rest = path.partition(".")
    result = copy(model)
    child = _with_submodule(model._modules[name], rest, module) if rest else module
    result._modules = {**model._modules, name: child}
    return result


class _RecordingStack(nn.Module):
    """Wrapper of a stack of decoder layers that records the stack's output."""

    def __init__(self, stack: nn.Module):
        super().__init__()
        self.stack = stack

    def __getattr__(self, name: str):
        # Some heads read attributes of the stack (Falcon-H1 its lm_head_multiplier).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("stack"), name)

    def forward(self, *args, **kwargs):
        """Same as the stack's, whose arguments these are."""
        self.output = self.stack(*args, **kwargs)
        return self.output


class _StatesAsStack(_RecordingStack):
    """Stand-in for a recorded stack of decoder layers that returns the hidden states that it gets as input."""

    def forward(self, *args, inputs_embeds: Tensor, **kwargs):
        """The hidden states in the stack's type of output; the other arguments are the family's."""
        return type(self.stack.output)(last_hidden_state=inputs_embeds)
