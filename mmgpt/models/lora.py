"""LoRA around a registered model, built on peft (Hu et al. 2021, arXiv:2106.09685)."""

from contextlib import AbstractContextManager

from mmengine.model import BaseModel
from peft import LoraConfig, get_peft_model
from torch import nn

from mmgpt.registry import MODELS

# Fields of peft's LoraConfig that would do something else than what they promise here.
REFUSED = {
    "modules_to_save": "choose layers by target_modules and tokens by train_tokens",
    "task_type": "leave it out; it chooses peft's wrapper for a model of transformers, which images do not get through",
    "inference_mode": "leave it out; it freezes the LoRA updates, and nothing would be trained",
}


@MODELS.register_module()
class LoRAModel(BaseModel):
    """A frozen model with trained low-rank updates in some of its layers.

    Args:
        module: config of the model.
        lora: fields of peft's LoraConfig, passed on as they are (r, lora_alpha, target_modules, use_dora, ...).
        train_tokens: tokens whose embedding rows are trained too (peft's trainable_token_indices), e.g. ['<image>'].
    """

    def __init__(self, module: dict, lora: dict, train_tokens: list[str] | None = None):
        for key, reason in REFUSED.items():
            if lora.get(key):
                raise ValueError(f"lora.{key}={lora[key]!r} is not supported: {reason}")
        module, lora = MODELS.build(module), dict(lora)
        super().__init__(module.data_preprocessor)
        if train_tokens:
            lora["trainable_token_indices"] = {_embedding(module): _token_ids(module.tokenizer, train_tokens)}
        self.peft = get_peft_model(module, LoraConfig(**lora))
        self.train(self.training)

    @property
    def module(self) -> nn.Module:
        """The wrapped model, its layers carrying the LoRA updates."""
        return self.peft.get_base_model()

    @property
    def tokenizer(self):
        """The wrapped model's tokenizer."""
        return self.module.tokenizer

    def init_weights(self) -> None:
        """Nothing: the parts were built with their weights."""

    def forward(self, *args, **kwargs):
        """As the wrapped model, whose arguments these are."""
        return self.module(*args, **kwargs)

    def generate(self, *args, **kwargs):
        """As the wrapped model, whose arguments these are."""
        return self.module.generate(*args, **kwargs)

    def disabled(self) -> AbstractContextManager:
        """Within this context the model answers as it did before tuning."""
        return self.peft.disable_adapter()


def _embedding(module: nn.Module) -> str:
    """The token embedding's name, which every family chooses for itself (embed_tokens, embed_in, wte)."""
    embedding, head = module.language.get_input_embeddings(), module.language.get_output_embeddings()
    if head.weight is embedding.weight:
        # peft would train the rows of the embedding alone, and merge them into both: another model.
        raise ValueError("train_tokens: this language model's embedding is tied to its output head; leave it None")
    return next(name for name, part in module.named_modules() if part is embedding)


def _token_ids(tokenizer, tokens: list[str]) -> list[int]:
    ids = tokenizer.convert_tokens_to_ids(tokens)
    unknown = [token for token, i in zip(tokens, ids, strict=True) if i is None or i == tokenizer.unk_token_id]
    if unknown:
        raise ValueError(
            f"train_tokens: the tokenizer does not know {unknown}; it knows {tokenizer.all_special_tokens}"
        )
    return ids
