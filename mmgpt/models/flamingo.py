"""Flamingo: an image encoder, a Perceiver resampler and a gated causal language model (arXiv:2204.14198)."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.registry import FUNCTIONS, MODELS
from mmgpt.utils.precisions import AUTO

from .components import build_component, build_encoder
from .gated_lm import gated_layers
from .generation import answer_ends, generation_arguments, settings_in_force, use_special_tokens
from .generation_files import as_ids
from .language import fitted_language_model, load_language_model
from .loss import IGNORE_INDEX, attach_to_graph, chunked_cross_entropy, sums_by_source
from .media import count_images, image_samples, only_tokens_with_images, positions_in_samples
from .memory.quantization import check_quantized, quantize
from .packing import packed_inputs
from .perceiver import resample
from .tokenizer import IMAGE_TOKEN, load_tokenizer
from .transformers_names import set_activation_checkpointing
from .vision.base import encode_images
from .vision.fingerprint import check_fingerprint
from .weights.loading import load_components

MODES = ("tensor", "loss", "predict")
FREEZABLE = ("vision", "perceiver", "language")


@MODELS.register_module()
class Flamingo(BaseModel):
    """Vision-language model: a language model whose tokens attend to images by gated cross-attention.

    1. Image encoder: pixels (N, 3, H, W) -> patch features (N, P, D), without gradients where it is frozen.
    2. Perceiver resampler: the patch features of each image -> N latents.
    3. Language model: tokens (B, L) go through its decoder layers; the gated blocks between them attend to the latents.
    4. Loss of the label tokens, a mean for each source; or answers.

    Shapes: B batch, L text tokens, T images, N latents, P patches, D width of image features, H W pixels.

    Each component is built by MODELS from `dict(type=..., ...)`, so that a config can name another one, also from a
    module of `custom_imports`. What it needs (a component that lacks it is refused at build):

    - `vision`: `forward(pixels)` (N, 3, H, W) -> (N, P, D), and `width`, the D. `pretrained=False` says that its
      weights are random.
    - `perceiver`: built with `dim` D. `forward(features, positions)` takes (B, T, F, P, D), F frames an image, and the
      images' positions in their samples (B, T), and returns (B, T, N, D). `takes_positions=False` says that latents do
      not depend on positions. A `GradientCheckpointingLayer` of transformers can be checkpointed and compiled. One with
      `frame_embs`, embeddings of the places of tiles, gets their `tile_ids` (B, T, F) as third argument.
    - `gated`: built with `dim` (of the language model), `dim_visual` D and `index` (of the decoder layer).
      `forward(hidden_states, media)` returns hidden states (B, L, dim); `apply_block` handles the tokens without an
      image, and a mask without columns comes without features. `keys_values(media)` returns what it computes of the
      images alone, two tensors (B, heads, T * N, d), from `media.cache` at its index where they are there. `attn_gate`
      is a parameter that is zero while no image gets in.
    - `language`: wraps a causal language model of transformers; a subclass of GatedCausalLM, or a class with its
      arguments and methods. Arguments beside those of `load_language_model` are its own.

    Args:
        vision: config of an image encoder, and `dtype` of its weights, e.g. 'bfloat16'; None: as they are.
        language: arguments of `load_language_model`; its `path` also holds the tokenizer. With `precision` 'int8' or
            'int4' its matrices are quantized when the model is moved to its device, also if that is the CPU. The type
            is GatedCausalLM unless it names another.
        perceiver: config of the resampler, of type PerceiverResampler unless it names another.
        gated: config of the gated blocks, of type GatedCrossAttentionBlock unless it names another, and
            `every_n_layers` and `dtype` of GatedCausalLM.
        image_attention: which image a token attends to, 'latest' or 'next' (see `attended_images`).
        weights: safetensors file with the resampler, the gated blocks and any further trained tensor.
        frozen: frozen components, of 'vision' (which also stays in evaluation mode), 'perceiver' and
            'language' (the gated blocks stay trainable). The published training freezes vision and language.
        feature_cache: folder with features of the frozen image encoder, which `pixels` may hold where it exists.
        generation: arguments of `generate` for mode 'predict' (max_new_tokens, num_beams, ...).
        loss_chunk: number of tokens whose logits exist at once in training.
        checkpointing: whether training keeps only the inputs of decoder layers, gated blocks and resampler, and
            computes the rest again in the backward pass: a third more time, a fraction of the memory.
        data_preprocessor: MMEngine's; the default moves the batch to the model's device.

    Raises:
        ValueError: an argument does not fit another one, or a component lacks what is needed of it.
    """

    def __init__(
        self,
        vision: dict,
        language: dict,
        perceiver: dict | None = None,
        gated: dict | None = None,
        image_attention: str = "latest",
        weights: str | None = None,
        frozen: Sequence[str] = ("vision", "language"),
        feature_cache: str | None = None,
        generation: dict | None = None,
        loss_chunk: int = 1024,
        checkpointing: bool = False,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor)
        unknown = set(frozen) - set(FREEZABLE)
        if unknown:
            raise ValueError(f"frozen={sorted(unknown)}: choose among {', '.join(FREEZABLE)}")
        if feature_cache is not None and "vision" not in frozen:
            raise ValueError(f"feature_cache={feature_cache!r}: cached features are of a frozen image encoder only")
        precision = language.get("precision")
        if precision is not None:
            check_quantized(precision)
            if "language" not in frozen:
                raise ValueError(f"language.precision={precision!r}: a quantized language model cannot be trained")
        self.tokenizer = load_tokenizer(language["path"])
        self.frozen, self.generation, self.loss_chunk = tuple(frozen), dict(generation or {}), loss_chunk
        ends = answer_ends(self.tokenizer, language)
        generation_arguments(self.tokenizer, self.generation, ends)  # raises before weights are loaded

        # 1. Image encoder and resampler.
        self.vision = build_encoder(vision)
        self.perceiver = build_component("perceiver", perceiver or {}, dim=self.vision.width)

        # 2. Language model, in a wrapper with gated blocks. Arguments that are not those of loading are the wrapper's.
        base = {key: value for key, value in language.items() if key not in ("type", "precision")}
        # Weights that are trained are float32 where nothing else is named: small steps vanish in bfloat16's rounding.
        trained_dtype = "float32" if base.get("dtype") == AUTO else None
        if trained_dtype and "language" not in frozen:
            base["dtype"] = trained_dtype
        wrapper = {}
        if "type" in language:
            loading = inspect.signature(load_language_model).parameters
            wrapper = {key: base.pop(key) for key in [*base] if key not in loading} | {"type": language["type"]}
        model = fitted_language_model(self.tokenizer, base)
        use_special_tokens(model, self.tokenizer, ends)
        block = dict(gated or {})
        self.language = build_component(
            "language",
            wrapper,
            model=model,
            dim_visual=self.vision.width,
            image_token_id=self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            every_n_layers=block.pop("every_n_layers", 4),
            image_attention=image_attention,
            dtype=block.pop("dtype", trained_dtype),
            block=partial(build_component, "gated", block),
        )

        # 3. Frozen and trainable parameters, and activation checkpointing.
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)
        for layer in gated_layers(self.language):
            layer.gated.requires_grad_(True)
        self.checkpoint(checkpointing)

        # 4. Weights. None: the resampler and the gated blocks are new (see `check_image_path`).
        self.weights = weights
        if weights is not None:
            load_components(self, weights)
        if precision is not None:
            quantize(self.language.model, precision)
        self.takes_features = feature_cache is not None and check_fingerprint(self.vision, feature_cache)

    def checkpoint(self, on: bool) -> None:
        """Switch activation checkpointing of training on or off (see `checkpointing` of the class)."""
        set_activation_checkpointing(self.language, on)
        if on:
            self.language.disable_input_require_grads()
        if isinstance(self.perceiver, GradientCheckpointingLayer):
            self.perceiver.gradient_checkpointing = on
            self.perceiver._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def init_weights(self) -> None:
        """Do nothing: components are built with their weights, and MMEngine must not change foreign modules."""

    def train(self, mode: bool = True) -> "Flamingo":
        """Same as torch's, except that a frozen image encoder stays in evaluation mode (batch statistics, dropout)."""
        super().train(mode)
        if "vision" in self.frozen:
            self.vision.eval()
        return self

    def encode_images(
        self,
        pixels: Tensor,
        image_counts: Tensor | None = None,
        positions: Tensor | None = None,
        tile_ids: Tensor | None = None,
    ) -> Tensor:
        """Images (B, T, 3, H, W), frames (B, T, F, 3, H, W) or cached features (B, T, P, D) -> latents (B, T, N, D).

        Args:
            pixels: T images in each row.
            image_counts: (B,) number of images of each row; the rest of T is padding, which is not encoded and gives
                zeros. None: T.
            positions: (B, T), the images' positions in their samples; None: those in their rows.
            tile_ids: (B, T, F), the places of the frames (or of cached features (B, T, F, P, D)) in their images, -1
                for padding, which is not encoded either; None: the images are not tiled.
        """
        batch, images = pixels.shape[:2]
        counts = pixels.new_full((batch,), images) if image_counts is None else image_counts
        columns = torch.arange(images, device=pixels.device).expand(batch, -1)
        # The indices come from integers alone, which are real in the memory planner, where the images are fake.
        real = (columns < counts[:, None]).nonzero(as_tuple=True)
        tile_ids = None if tile_ids is None or not len(real[0]) else tile_ids[real]
        if len(real[0]):
            features = encode_images(self.vision, pixels[real], self.takes_features, tile_ids)
        else:  # All images are padding, whose size does not matter.
            features = pixels.new_zeros(0, 1, 1, self.vision.width)
        positions = columns if positions is None else positions
        return resample(self.perceiver, features, real, positions, tile_ids)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixels: Tensor | None = None,
        image_counts: Tensor | None = None,
        labels: Tensor | None = None,
        sample_ids: Tensor | None = None,
        candidates: Sequence[Sequence[dict]] | None = None,
        sources: Sequence[str] | None = None,
        metas: Sequence[dict] | None = None,
        totals: dict[str, Tensor] | None = None,
        mode: str = "tensor",
        tile_ids: Tensor | None = None,
        turn_ids: Tensor | None = None,
    ):
        """Logits, losses or answers of a batch as the collate function makes it.

        Args:
            input_ids, attention_mask, labels: (B, L); -100 in labels for tokens without a loss.
            pixels: (B, T, 3, H, W), or as in `encode_images`; None when no row has an image.
            image_counts: (B,) number of images of each row, one for each of its `<image>` tokens; None: T.
            sample_ids: (B, L) of packed rows: the number of each token's sample, -1 for padding; they replace the
                attention_mask. None: each row is a sample.
            candidates: for each sample the answers to choose among by likelihood (see `inference.scoring.Candidate`),
                instead of generation in mode 'predict'.
            sources: a name ('visual', 'language') for each sample; the loss is the sum of the sources' means.
            metas: a dict for each sample, returned with a 'prediction' by mode 'predict'.
            totals: what the loss of each source is divided by, instead of the number of its label tokens here.
            mode: 'tensor' -> logits (B, L, vocabulary); 'loss' -> dict of losses; 'predict' -> list of dicts.
            tile_ids: (B, T, F) of tiled images, as in `encode_images`.
            turn_ids: (B, L) beside `sample_ids`, of samples whose turns see nothing of each other: the number of each
                token's turn, 0 for what they share.

        Raises:
            ValueError: unknown mode, a row has another number of images than of `<image>` tokens, or rows of several
                samples are to be answered.
        """
        if mode not in MODES:
            raise ValueError(f"mode={mode!r}: choose one of {', '.join(MODES)}")
        if mode == "predict":
            if sample_ids is not None:
                raise ValueError("rows of several samples cannot be answered: leave row_length out of the collate_fn")
            # Registered by mmgpt.inference, which lies above this package and is not imported here.
            predict = FUNCTIONS.get("predict")
            return predict(self, (input_ids, attention_mask, pixels, image_counts, tile_ids), candidates, metas)
        # 1. The images become latents (B, T, N, D), and a mask says which of them each token attends to.
        latents, image_counts = self._latents_and_counts(input_ids, pixels, image_counts, sample_ids, tile_ids)
        media = self.language.media(input_ids, latents, image_counts, sample_ids)
        media = only_tokens_with_images(media, input_ids.shape[1])
        text = dict(attention_mask=attention_mask)
        if sample_ids is not None:
            text = packed_inputs(self.language.model, sample_ids, turn_ids)
        if mode == "tensor":
            return self.language(input_ids, media=media, use_cache=False, **text).logits

        # 2. The language model computes its last hidden states (B, L, D), without logits.
        states, logits = self.language.hidden_states(input_ids, media, **text)

        # 3. Each label token is predicted from the token before it; logits exist for a chunk of them at a time.
        targets = labels[:, 1:]
        supervised = (targets != IGNORE_INDEX).nonzero(as_tuple=True)
        losses = chunked_cross_entropy(states[supervised], targets[supervised], logits, self.loss_chunk)

        # 4. The loss of each source is the mean of its tokens' losses. Where `totals` say what to divide by, there is
        # one for each of them, and at least one: processes that train together need a gradient from each.
        owners = supervised[0] if sample_ids is None else sample_ids[:, 1:][supervised]
        sources = sources or ["text"] * labels.numel()
        sums = sums_by_source(losses, owners, sources, None if totals is None else totals or ["none"])
        means = {
            f"loss_{name}": total / (count if totals is None else totals.get(name, 1))
            for name, (total, count) in sums.items()
        }
        if any(mean.requires_grad for mean in means.values()):
            return means
        # A batch without images does not reach the trainable parameters where these are all on the image path.
        return attach_to_graph(means, [weight for weight in self.parameters() if weight.requires_grad])

    def _latents_and_counts(
        self,
        input_ids: Tensor,
        pixels: Tensor | None,
        image_counts: Tensor | None,
        sample_ids: Tensor | None = None,
        tile_ids: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Latents (B, T, N, D) of a batch's images, None without any, and the number of images of each row (B,)."""
        is_image = input_ids == self.language.image_token_id
        counts = count_images(is_image, 0 if pixels is None else pixels.shape[1], image_counts)
        if pixels is None:
            return None, counts
        positions = None
        if sample_ids is not None:
            positions = positions_in_samples(image_samples(is_image, sample_ids, pixels.shape[1]))
        return self.encode_images(pixels, counts, positions, tile_ids), counts

    def ends(self, generation: Mapping) -> list[int]:
        """Ids of the tokens that end an answer that is generated with these arguments."""
        arguments = generation_arguments(self.tokenizer, generation, self.language.ends)
        return as_ids(arguments.get("eos_token_id", self.language.ends))

    def settings_in_force(self, generation: Mapping | None = None) -> dict:
        """`generation.settings_in_force` with the model's own generation arguments, or with others."""
        return settings_in_force(self.language, self.tokenizer, self.generation if generation is None else generation)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixels: Tensor | None = None,
        image_counts: Tensor | None = None,
        tile_ids: Tensor | None = None,
        **generation,
    ) -> Tensor:
        """New token ids (B, <= max_new_tokens), padded, after left-padded prompts, as mode 'predict' generates them.

        `generation` are the settings of `generation_arguments`. `num_return_sequences`, at most `num_beams`, gives so
        many rows for each prompt, the best first. Images and their errors are those of `forward`.
        """
        count = generation.pop("num_return_sequences", None) or 1
        if count > (generation.get("num_beams") or 1):
            raise ValueError(f"num_return_sequences={count}: set num_beams to as many at least")
        # Registered by mmgpt.inference, like `predict`.
        prompts = input_ids, attention_mask, pixels, image_counts, tile_ids
        requests = FUNCTIONS.get("answer_prompts")(self, prompts, generation)
        answers = [answer for request in requests for answer in request.answers[:count]]
        return pad_sequence(list(map(input_ids.new_tensor, answers)), True, self.tokenizer.pad_token_id)
