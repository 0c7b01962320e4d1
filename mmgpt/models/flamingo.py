"""Flamingo: an image encoder, a Perceiver resampler and a gated causal language model (arXiv:2204.14198)."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.registry import FUNCTIONS, MODELS

from .components import build_component
from .generation import answer_ends, generation_arguments, settings_in_force, use_special_tokens
from .generation_files import as_ids
from .language import fitted_language_model, load_language_model
from .loss import IGNORE_INDEX, attach_to_graph, chunked_cross_entropy, sums_by_source
from .media import count_images, image_samples, narrowed, places_in_samples
from .memory.quantization import check_quantized, quantize
from .packing import packed_inputs
from .tokenizer import IMAGE_TOKEN, load_tokenizer
from .transformers_names import set_activation_checkpointing
from .vision.base import encode_images
from .vision.fingerprint import check_fingerprint
from .weights.loading import load_components

MODES = ("tensor", "loss", "predict")
PARTS = ("vision", "perceiver", "language")


@MODELS.register_module()
class Flamingo(BaseModel):
    """A language model that reads images between its words.

    Args:
        vision: config of an image encoder, and `dtype` of its weights, e.g. 'bfloat16'; None: as they are.
        language: arguments of `load_language_model`; its `path` also holds the tokenizer. With `precision` 'int8' or
            'int4' its matrices are quantized when the model is moved to its device, also if that is the CPU.
        perceiver: arguments of PerceiverResampler, without the width.
        gated: arguments of GatedCrossAttentionBlock, and `every_n_layers` and `dtype` of GatedCausalLM.
        reading: which image a token reads, 'latest' or 'next' (see `media_mask`).
        weights: safetensors file with the resampler, the gated blocks and any further tensor that was trained.
        frozen: parts that are not trained, of 'vision' (which also stays in evaluation mode), 'perceiver', 'language'
            (the gated blocks stay trainable). The published training freezes vision and language.
        feature_cache: folder with features of the frozen image encoder, which `pixels` may hold where it exists.
        generation: arguments of `generate` for mode 'predict' (max_new_tokens, num_beams, ...).
        loss_chunk: number of tokens whose logits exist at once in training.
        checkpointing: whether training keeps only the inputs of decoder layers, gated blocks and resampler, and
            computes the rest again in the backward pass: a third more time, a fraction of the memory.
        data_preprocessor: MMEngine's; the default moves the batch to the model's device.
    """

    def __init__(
        self,
        vision: dict,
        language: dict,
        perceiver: dict | None = None,
        gated: dict | None = None,
        reading: str = "latest",
        weights: str | None = None,
        frozen: Sequence[str] = ("vision", "language"),
        feature_cache: str | None = None,
        generation: dict | None = None,
        loss_chunk: int = 1024,
        checkpointing: bool = False,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor)
        unknown = set(frozen) - set(PARTS)
        if unknown:
            raise ValueError(f"frozen={sorted(unknown)}: choose among {', '.join(PARTS)}")
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
        generation_arguments(self.tokenizer, self.generation, ends)  # what is wrong in them shows before weights load
        self.vision = build_component("vision", {key: value for key, value in vision.items() if key != "dtype"})
        if vision.get("dtype"):
            self.vision.to(getattr(torch, vision["dtype"]))
        self.perceiver = build_component("perceiver", perceiver or {}, dim=self.vision.width)
        self.language = self._gated_language(language, ends, dict(gated or {}), reading)
        self._freeze()
        self.checkpoint(checkpointing)
        # None: the resampler and the gated blocks are new. See `check_image_path`.
        self.weights = weights
        if weights is not None:
            load_components(self, weights)
        if precision is not None:
            quantize(self.language.model, precision)
        self.takes_features = feature_cache is not None and check_fingerprint(self.vision, feature_cache)

    def _gated_language(self, language: dict, ends: Sequence[int], gated: dict, reading: str) -> nn.Module:
        base = {key: value for key, value in language.items() if key not in ("type", "precision")}
        wrapper = {}
        if "type" in language:
            arguments = inspect.signature(load_language_model).parameters
            wrapper = {key: base.pop(key) for key in [*base] if key not in arguments} | {"type": language["type"]}
        model = fitted_language_model(self.tokenizer, base)
        use_special_tokens(model, self.tokenizer, ends)
        return build_component(
            "language",
            wrapper,
            model=model,
            dim_visual=self.vision.width,
            image_token_id=self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            every_n_layers=gated.pop("every_n_layers", 4),
            reading=reading,
            dtype=gated.pop("dtype", None),
            block=gated,
        )

    def _freeze(self) -> None:
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)
        for name, parameter in self.language.named_parameters():
            if ".gated." in name:
                parameter.requires_grad_(True)

    def checkpoint(self, on: bool) -> None:
        """From now on training keeps all activations, or only some inputs (see `checkpointing` of the class)."""
        set_activation_checkpointing(self.language, on)
        if on:
            self.language.disable_input_require_grads()
        if isinstance(self.perceiver, GradientCheckpointingLayer):
            self.perceiver.gradient_checkpointing = on
            self.perceiver._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def init_weights(self) -> None:
        """Nothing: every part was built with its weights, and MMEngine must not walk into foreign modules."""

    def train(self, mode: bool = True) -> "Flamingo":
        """As in torch, but a frozen image encoder stays in evaluation mode (batch statistics, dropout)."""
        super().train(mode)
        if "vision" in self.frozen:
            self.vision.eval()
        return self

    def encode(self, pixels: Tensor, image_counts: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """Images (B, T, 3, H, W), frames (B, T, F, 3, H, W) or cached features (B, T, P, D) -> latents (B, T, N, D).

        With image_counts (B,), only the first of the T places of each row hold images; the others are not looked at
        and give zeros. `places` (B, T) are the images' places in their samples, by default those in their rows.
        """
        batch, images = pixels.shape[:2]
        counts = pixels.new_full((batch,), images) if image_counts is None else image_counts
        row_places = torch.arange(images, device=pixels.device).expand(batch, -1)
        real = row_places < counts[:, None]
        # Of shapes that do not depend on tensors of the device: see tools/analysis_tools/memory_plan.py.
        real = real.nonzero(as_tuple=True)
        if len(real[0]):
            seen = encode_images(self.vision, pixels[real], self.takes_features)
        else:  # blank pictures, of any size
            seen = pixels.new_zeros(0, 1, 1, self.vision.width)
        places = row_places if places is None else places
        dtype = next((weight.dtype for weight in self.perceiver.parameters()), seen.dtype)
        latents = self.perceiver(seen.to(dtype)[:, None], places[real][:, None])[:, 0]
        return latents.new_zeros(batch, images, *latents.shape[1:]).index_put(real, latents)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixels: Tensor | None = None,
        image_counts: Tensor | None = None,
        labels: Tensor | None = None,
        samples: Tensor | None = None,
        candidates: Sequence[Sequence[dict]] | None = None,
        sources: Sequence[str] | None = None,
        metas: Sequence[dict] | None = None,
        totals: dict[str, Tensor] | None = None,
        mode: str = "tensor",
    ):
        """One batch as the collate function makes it.

        Args:
            input_ids, attention_mask, labels: (B, L); -100 in labels where nothing is learned.
            pixels: (B, T, 3, H, W), or as in `encode`; None when no row has an image.
            image_counts: (B,) number of images of each row, one for each of its `<image>` tokens; None: T.
            samples: (B, L) number of each token's sample where rows hold several of them, -1 for padding; it takes the
                place of attention_mask. None: each row is a sample.
            candidates: for each sample the answers to choose among by likelihood (see `inference.scoring.Candidate`),
                instead of generation in mode 'predict'.
            sources: a name ('visual', 'language') for each sample; the loss is the sum of each source's mean.
            metas: a dict for each sample, returned with a 'prediction' by mode 'predict'.
            totals: what the loss of each source is divided by, instead of the number of its learned tokens here.
            mode: 'tensor' -> logits (B, L, vocabulary); 'loss' -> dict of losses; 'predict' -> list of dicts.

        Raises:
            ValueError: unknown mode, a row has another number of images than of `<image>` tokens, or rows of several
                samples are to be answered.
        """
        if mode not in MODES:
            raise ValueError(f"mode={mode!r}: choose one of {', '.join(MODES)}")
        if mode == "predict":
            if samples is not None:
                raise ValueError("rows of several samples cannot be answered: leave row_length out of the collate_fn")
            # Registered by mmgpt.inference, which lies above this package and is not imported here.
            predict = FUNCTIONS.get("predict")
            return predict(self, (input_ids, attention_mask, pixels, image_counts), candidates, metas)
        # 1. The images become latents (B, T, N, D), and a mask says which of them each token attends to.
        latents, image_counts = self._encoded(input_ids, pixels, image_counts, samples)
        media = narrowed(self.language.media(input_ids, latents, image_counts, samples), input_ids.shape[1])
        text = dict(attention_mask=attention_mask) if samples is None else packed_inputs(self.language.model, samples)
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
        owners = supervised[0] if samples is None else samples[:, 1:][supervised]
        sources = sources or ["text"] * labels.numel()
        sums = sums_by_source(losses, owners, sources, None if totals is None else totals or ["none"])
        means = {
            f"loss_{name}": total / (count if totals is None else totals.get(name, 1))
            for name, (total, count) in sums.items()
        }
        if any(mean.requires_grad for mean in means.values()):
            return means
        # A batch of texts alone, where only what images pass through is trained, teaches nothing and is no error.
        return attach_to_graph(means, [weight for weight in self.parameters() if weight.requires_grad])

    def _encoded(
        self, input_ids: Tensor, pixels: Tensor | None, image_counts: Tensor | None, samples: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Latents (B, T, N, D) of a batch's images, None without any, and how many each row has (B,)."""
        is_image = input_ids == self.language.image_token_id
        counts = count_images(is_image, 0 if pixels is None else pixels.shape[1], image_counts)
        if pixels is None:
            return None, counts
        places = None
        if samples is not None:
            places = places_in_samples(image_samples(is_image, samples, pixels.shape[1]))
        return self.encode(pixels, counts, places), counts

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
        **generation,
    ) -> Tensor:
        """New token ids (B, <= max_new_tokens) after left-padded prompts.

        `generation` are transformers' own arguments, and those of `generation_arguments`. Images and their errors are
        those of `forward`.
        """
        features, counts = self._encoded(input_ids, pixels, image_counts)
        out = self.language.generate(
            input_ids,
            media_features=features,
            image_counts=counts,
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            **generation_arguments(self.tokenizer, generation, self.language.ends),
        )
        return out[:, input_ids.shape[1] :]
