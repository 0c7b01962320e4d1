"""Flamingo as a model of transformers: its configuration, and a PreTrainedModel of the same modules."""

import os
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    Cache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import is_peft_available

from mmgpt.models.gated_lm import GatedCausalLM, GatedCrossAttentionBlock
from mmgpt.models.media import Media, only_tokens_with_images
from mmgpt.models.perceiver import PerceiverResampler, resample
from mmgpt.models.vision.base import encode_images
from mmgpt.models.vision.huggingface import HFVision
from mmgpt.models.vision.open_clip import OpenCLIPVision
from mmgpt.models.vision.timm import TimmVision

from .source import FILE, source

ENCODERS = {kind.__name__: kind for kind in (HFVision, OpenCLIPVision, TimmVision)}


class MMGPTConfig(PreTrainedConfig):
    """Configuration of an MMGPTForConditionalGeneration.

    Attributes:
        text_config: transformers' configuration of the language model.
        vision_config: `encoder` (a key of ENCODERS), `settings` (its attributes, such as `width`), and `network`, its
            configuration in its own library.
        perceiver_config: arguments of PerceiverResampler besides `dim`.
        gated_config: arguments of GatedCrossAttentionBlock, and `every_n_layers` of GatedCausalLM.
        image_attention: which image a token attends to, 'latest' or 'next' (see `attended_images`).
        image_token_id: id of `<image>`.
        float32_components: the components, of 'vision', 'perceiver' and 'gated', that stay in float32 beside a language
            model in lower precision.
        has_adapter: whether the folder has an adapter in peft's format, without which the model is not the tuned one.
    """

    model_type = "mmgpt"
    sub_configs = {"text_config": AutoConfig}
    has_no_defaults_at_init = True

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | None = None
    perceiver_config: dict | None = None
    gated_config: dict | None = None
    image_attention: str = "latest"
    image_token_id: int = 0
    float32_components: list | None = None
    has_adapter: bool = False

    def __post_init__(self, **kwargs):
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        # Where to find the classes of this file without the package mmgpt.
        self.auto_map = {"AutoConfig": f"{Path(FILE).stem}.MMGPTConfig"}
        for name in ("AutoModel", "AutoModelForImageTextToText"):
            self.auto_map[name] = f"{Path(FILE).stem}.MMGPTForConditionalGeneration"
        kwargs.pop("auto_map", None)
        super().__post_init__(**kwargs)


class MMGPTForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Flamingo for transformers: image encoder, Perceiver resampler and gated causal language model.

    Its modules and the names of its tensors are those of mmgpt's Flamingo, of which it has no second implementation.
    Each `<image>` token of `input_ids` stands for one image of `pixel_values`, in their order.
    """

    config_class = MMGPTConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    # A gated block and the decoder layer after it stay on one device.
    _no_split_modules = ["GatedDecoderLayer"]

    def __init__(self, config: MMGPTConfig):
        if config.has_adapter and not is_peft_available():
            raise ImportError("the folder of this model has a LoRA adapter: pip install peft")
        super().__init__(config)
        gated = dict(config.gated_config)
        every_n_layers = gated.pop("every_n_layers")
        self.vision = build_encoder(config.vision_config)
        self.perceiver = PerceiverResampler(self.vision.width, **config.perceiver_config)
        model = AutoModelForCausalLM.from_config(config.text_config)
        self.language = GatedCausalLM(
            model,
            self.vision.width,
            config.image_token_id,
            every_n_layers,
            config.image_attention,
            partial(GatedCrossAttentionBlock, **gated),
        )
        # What transformers gathers from the models inside (see its post_init), through the wrapper in between.
        tied = model.all_tied_weights_keys.items()
        self.language.all_tied_weights_keys = {f"model.{name}": f"model.{source}" for name, source in tied}
        for name in ("_no_split_modules", "_skip_keys_device_placement", "_keep_in_fp32_modules"):
            setattr(self.language, name, getattr(model, name))
        # An adapter of peft is float32, as in mmgpt.
        self._keep_in_fp32_modules_strict = [*(config.float32_components or ()), "lora_", "trainable_tokens_"]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: modules initialize themselves when they are built."""

    def train(self, mode: bool = True) -> "MMGPTForConditionalGeneration":
        """Same as torch's, except that a frozen image encoder stays in evaluation mode (batch statistics, dropout)."""
        super().train(mode)
        if not any(weight.requires_grad for weight in self.vision.parameters()):
            self.vision.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The language model's, which is that of the whole model but for `float32_components`."""
        return self.language.model.dtype

    @property
    def base_model(self) -> "Backbone":
        """This model without its output head, as TRL calls it."""
        return Backbone(self)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding of the language model."""
        return self.language.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the language model."""
        self.language.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The output head of the language model."""
        return self.language.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the output head of the language model."""
        self.language.model.set_output_embeddings(value)

    def latents(
        self, input_ids: Tensor, pixel_values: Tensor | None, tile_ids: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Latents (B, T, N, D) of the images, None without any, and the number of images of each row (B,).

        Args:
            input_ids: (B, L).
            pixel_values: (n, 3, H, W), the images of all rows in the order of their `<image>` tokens.
            tile_ids: (n, F) of tiled images, whose pixel values are frames (n, F, 3, H, W): the places of the frames,
                -1 for padding.

        Raises:
            ValueError: another number of images than of `<image>` tokens; or a tile in a place without an embedding.
        """
        counts = (input_ids == self.config.image_token_id).sum(dim=1)
        images = 0 if pixel_values is None else len(pixel_values)
        if counts.sum() != images:
            raise ValueError(f"{counts.sum()} `<image>` tokens and {images} images: each image needs one token")
        if not images:
            return None, counts
        positions = torch.arange(counts.max(), device=counts.device).expand(len(counts), -1)
        real = (positions < counts[:, None]).nonzero(as_tuple=True)
        features = encode_images(self.vision, pixel_values, takes_features=False, tile_ids=tile_ids)
        return resample(self.perceiver, features, real, positions, tile_ids), counts

    def media(self, input_ids: Tensor, pixel_values: Tensor | None, tile_ids: Tensor | None = None) -> Media | None:
        """What the tokens attend to, for the language model; arguments and errors are those of `latents`."""
        latents, counts = self.latents(input_ids, pixel_values, tile_ids)
        return only_tokens_with_images(self.language.media(input_ids, latents, counts), input_ids.shape[1])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        tile_ids: Tensor | None = None,
        **kwargs,
    ):
        """The language model's output: logits (B, L, vocabulary), and with labels (B, L) the loss.

        Further keywords are those of the language model's forward.

        Raises:
            ValueError: see `latents`; or a KV cache that has tokens, whose images this method does not know.
        """
        cache = kwargs.pop("cache", past_key_values)
        if cache is not None and cache.get_seq_length():
            raise ValueError("the images of tokens in a KV cache are not known to forward: use generate")
        media = self.media(input_ids, pixel_values, tile_ids)
        if labels is not None:
            kwargs["labels"] = labels
        return self.language(input_ids, attention_mask, cache=cache, media=media, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        tile_ids: Tensor | None = None,
        **kwargs,
    ):
        """transformers' generate, whose keywords these are; images are encoded once.

        Raises:
            ValueError: see `latents`.
        """
        latents, counts = self.latents(input_ids, pixel_values, tile_ids)
        # transformers sets this attribute of the outermost model when it loads a folder.
        self.language.generation_config = self.generation_config
        return self.language.generate(
            input_ids,
            media_features=latents,
            image_counts=counts,
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            **kwargs,
        )

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """Same as transformers', and the source of this class, for those who do not have the package mmgpt."""
        super().save_pretrained(save_directory, *args, **kwargs)
        (Path(save_directory) / FILE).write_text(source(), encoding="utf-8")


class Backbone:
    """A model without its output head, whose submodules it shares; it is not a module itself."""

    # transformers asks the model's `base_model` for these.
    _tp_plan = _pp_plan = None

    def __init__(self, model: MMGPTForConditionalGeneration):
        self.model = model

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        use_cache: bool = False,
        tile_ids: Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """`last_hidden_state` (B, L, dim); the arguments are those of the model's forward, without a KV cache."""
        media = self.model.media(input_ids, pixel_values, tile_ids)
        states, _ = self.model.language.hidden_states(input_ids, media, attention_mask=attention_mask, **kwargs)
        return BaseModelOutput(states)


def build_encoder(config: dict) -> nn.Module:
    """The image encoder of a `vision_config`, without the folder of weights that its own constructor reads."""
    kind = ENCODERS[config["encoder"]]
    encoder = kind.__new__(kind)
    nn.Module.__init__(encoder)
    vars(encoder).update(config["settings"])
    if kind is HFVision:
        network = AutoModel.from_config(AutoConfig.for_model(**config["network"]))
        encoder.tower = getattr(network, "vision_model", network)
    elif kind is TimmVision:
        encoder.tower = timm_network(config["network"])
        encoder.tower.prune_intermediate_layers([encoder.layer], prune_norm=not encoder.final_norm, prune_head=True)
    else:
        encoder.tower = open_clip_network(config["network"])
    # transformers, which fills buffers that no file holds itself, does not know those of other libraries.
    for module in encoder.modules():
        module._non_persistent_buffers_set.clear()
    return encoder


def open_clip_network(config: dict) -> nn.Module:
    """The image encoder of an open_clip model's configuration."""
    try:
        import open_clip
    except ImportError as error:
        raise ImportError("the image encoder of this model needs open_clip: pip install open_clip_torch") from error
    # The text encoder, which is dropped, is as small as possible. Some networks need values while they are built, which
    # tensors of transformers' device 'meta' do not have.
    text = dict(context_length=1, vocab_size=2, width=8, heads=1, layers=1)
    with torch.device("cpu"):
        return open_clip.CLIP(**config, text_cfg=text).visual


def timm_network(config: dict) -> nn.Module:
    """The model of timm with these arguments of timm.create_model."""
    try:
        import timm
    except ImportError as error:
        raise ImportError("the image encoder of this model needs timm: pip install timm") from error
    with torch.device("cpu"):  # see open_clip_network
        return timm.create_model(**config)
