"""Hugging Face causal language models and tokenizers, with the special tokens that Flamingo adds."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

IMAGE_TOKEN = "<image>"
# In the order in which the published code adds them: the order fixes their ids.
ADDED_TOKENS = ("<|endofchunk|>", IMAGE_TOKEN)
PAD_TOKEN = "<PAD>"


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder with `<|endofchunk|>`, `<image>` and, for one without, `<PAD>`."""
    if not Path(path).is_dir():
        raise FileNotFoundError(f"no folder {path!r} with a tokenizer (tokenizer.json or tokenizer.model)")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ADDED_TOKENS)})
    # transformers 5 gives Llama's tokenizer <unk> for padding; the published models have a token of their own.
    if tokenizer.pad_token in (None, tokenizer.unk_token):
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return tokenizer


def load_language_model(
    path: str, dtype: str | None = None, pretrained: bool = True, config: dict | None = None
) -> PreTrainedModel:
    """The causal language model of a Hugging Face folder.

    Args:
        path: folder with config.json and the weights (safetensors or .bin, the latter read with weights-only loading).
        dtype: of the weights, e.g. 'bfloat16'; None is float32.
        pretrained: False builds the model with random weights, from config.json or from `config`.
        config: description of a new model, e.g. dict(model_type='llama', hidden_size=128, ...).
    """
    torch_dtype = getattr(torch, dtype or "float32")
    if config is not None:
        model_config = AutoConfig.for_model(**config)
        return AutoModelForCausalLM.from_config(model_config, dtype=torch_dtype, attn_implementation="sdpa")
    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"no language model in {path!r}: config.json is missing")
    if pretrained:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch_dtype, attn_implementation="sdpa")
    model_config = AutoConfig.from_pretrained(path)
    return AutoModelForCausalLM.from_config(model_config, dtype=torch_dtype, attn_implementation="sdpa")


@torch.no_grad()
def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Adds a row for each token that the model does not know: the mean of the others, so that every load agrees."""
    known, wanted = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if wanted <= known:
        return
    model.resize_token_embeddings(wanted, mean_resizing=False)
    tables = {id(t): t for t in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    for table in tables.values():
        table[known:] = table[:known].float().mean(dim=0).to(table.dtype)
