"""Hugging Face causal language models."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from mmengine.logging import print_log
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mmgpt.utils.hub import local_folder
from mmgpt.utils.precisions import AUTO

from .dtypes import float_dtype
from .generation_files import base_generation_config, check_no_code, read_model_config
from .memory.probe import auto_dtype, only_cpu
from .packed_attention import BY_SAMPLES, PACKED_MASKS
from .weights.checks import check_base, check_index, stored_dtypes

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", *PACKED_MASKS)
# Settings of MosaicML's models that transformers' MPT accepts in its config and does not compute (modeling_mpt.py of
# transformers 5.17), with the values that it does compute. With other values, a folder would load and answer nonsense.
MPT_COMPUTES = {
    "qk_ln": (False,),
    "attn_type": ("multihead_attention",),
    "prefix_lm": (False,),
    "alibi": (True,),
    "alibi_bias_max": (8,),
    "expansion_ratio": (4,),
    "no_bias": (True,),
    "logit_scale": (None,),
    "norm_type": ("low_precision_layernorm", "layernorm"),
}


def fitted_language_model(tokenizer: PreTrainedTokenizerBase, language: dict) -> PreTrainedModel:
    """A language model whose embedding and output head have a row for each token of a tokenizer.

    Args:
        language: arguments of `load_language_model`.
    """
    if "config" in language:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        language = {**language, "config": {"vocab_size": len(tokenizer), **ids, **language["config"]}}
    model = load_language_model(**language)
    fit_embeddings(model, tokenizer)
    return model


def load_language_model(
    path: str,
    dtype: str | None = None,
    pretrained: bool = True,
    config: dict | None = None,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """The causal language model of a Hugging Face folder or Hub id.

    Args:
        path: folder with config.json and the weights (safetensors or .bin, the latter read with weights-only loading),
            or the model's id on the Hub.
        dtype: of the weights, e.g. 'bfloat16'; None is float32; 'auto' is the fast one here (see `auto_dtype`).
        pretrained: False builds the model with random weights, from config.json or from `config`.
        config: description of a new model, e.g. dict(model_type='llama', hidden_size=128, ...).
        attn_implementation: one of ATTENTION, passed on to transformers. None: transformers chooses, except in low
            precision on a machine with nothing but a CPU, where torch's fused attention takes two to six times as long
            as 'eager' (docs/training.md). 'packed_eager', the default there, and on a GPU 'packed_flex' and
            'packed_varlen' do not compute across the samples of packed rows, see `packed_attention`.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: transformers does not compute such a model, or not with this attention; or the weights are not
            exactly the model's.
    """
    torch_dtype = None if dtype == AUTO else float_dtype(dtype or "float32", "language.dtype", AUTO)
    path = local_folder(path, weights=pretrained and config is None)
    # 1. The config, of a type that transformers knows.
    model_config = language_config(path, config)
    _check_computed(model_config, path)
    if dtype == AUTO:
        torch_dtype = auto_dtype(model_config)

    # 2. The model. Without a name transformers chooses the attention, as not every model has each.
    if attn_implementation is None and torch_dtype.itemsize < 4 and only_cpu():
        attn_implementation = "packed_eager" if model_config.model_type in BY_SAMPLES else "eager"
    attention = _attention_arguments(model_config, attn_implementation)
    if config is not None or not pretrained:
        return AutoModelForCausalLM.from_config(model_config, dtype=torch_dtype, trust_remote_code=False, **attention)
    # With this argument transformers does not refuse a folder for the settings in its generation_config.json.
    generation = base_generation_config(path)
    check_index(path)
    dtypes = {} if getattr(model_config, "quantization_config", None) else stored_dtypes(path)
    model, info = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch_dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        generation_config=generation,
        trust_remote_code=False,
        **attention,
    )

    # 3. Its weights. transformers leaves tied weights and the buffers of its older versions out of these lists.
    problems = [f"{kind} {name}" for kind in ("missing", "unexpected") for name in sorted(info[f"{kind}_keys"])]
    problems += [f"{name} is {tuple(shape)}, not {tuple(ours)}" for name, shape, ours in info["mismatched_keys"]]
    if problems:
        head = model.get_output_embeddings()
        one_table = problems == [f"missing {name}.weight" for name, module in model.named_modules() if module is head]
        advice = "; if it shares the token embedding's table, set tie_word_embeddings to true in config.json"
        raise ValueError(
            f"{path}: the weights are not those of the {type(model).__name__} that config.json describes: "
            f"{'; '.join(problems[:8])} ({len(problems)} in all){advice * one_table}"
        )
    check_base(model, dtypes, path)
    # transformers loads two different tables as two although config.json says that they are one, but then goes by the
    # config when it resizes or saves them, and would throw the output head away.
    for settings in (model.config, model.config.get_text_config()):
        settings.tie_word_embeddings = is_tied(model)
    return model


def language_config(path: str, config: dict | None = None) -> PreTrainedConfig:
    """transformers' config of a language model, for the arguments of `load_language_model`.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: transformers has no such model, or refuses a setting.
    """
    if config is not None:
        return _config(partial(AutoConfig.for_model, **config), "language.config")
    path = local_folder(path, weights=False)
    file = Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"no language model in {path!r}: config.json is missing")
    settings = read_model_config(path)
    check_no_code(settings, file)
    if settings.get("model_type") not in CONFIG_MAPPING:
        normalised = " (with attn_qk_ln, layer norm of queries and keys)" if settings.get("attn_qk_ln") else ""
        raise ValueError(
            f"{path}: transformers has no model of type {settings.get('model_type')!r}{normalised}, and code from "
            "a folder is not run; Llama, GPT-NeoX (RedPajama-INCITE) and MPT without that layer norm (mpt-7b) work"
        )
    return _config(partial(AutoConfig.from_pretrained, path, trust_remote_code=False), str(file))


def is_tied(language: nn.Module) -> bool:
    """Whether the token embedding and the output head of a causal language model share their weights."""
    return language.get_input_embeddings().weight is language.get_output_embeddings().weight


def _config(read: Callable[[], PreTrainedConfig], source: str) -> PreTrainedConfig:
    """transformers' config; a ValueError names the source of a setting that transformers refuses, and the setting."""
    try:
        return read()
    except (StrictDataclassError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error


def _check_computed(config: PreTrainedConfig, path: str) -> None:
    """Raises a ValueError for a model whose cache is not a DynamicCache, or that transformers would compute wrongly."""
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is not None and not model_class._supports_default_dynamic_cache():
        raise ValueError(
            f"{path}: {model_class.__name__} keeps a cache of its own between tokens instead of transformers' "
            "DynamicCache, so that it cannot be decoded in batches here; choose another language model"
        )
    try:
        DynamicCache(config=config).get_seq_length()
    except (ValueError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{path}: a model of type {config.model_type!r} has no KV cache that knows the length of a text, but "
            "recurrent layers only, or layers of a kind of its own; choose a language model that has attention layers"
        ) from error
    if config.model_type != "mpt":
        return
    settings = {**config.to_dict(), **config.attn_config.to_dict()}
    problems = [
        f"{name}={settings[name]!r} (only {', '.join(map(repr, computed))})"
        for name, computed in MPT_COMPUTES.items()
        if settings[name] not in computed
    ]
    if problems:
        raise ValueError(f"{path}: transformers' MPT does not compute {'; '.join(problems)}; mpt-7b works")


def _attention_arguments(config: PreTrainedConfig, name: str | None) -> dict[str, str]:
    """transformers' arguments for an attention implementation; ValueError where it does not compute the model's so."""
    if name is None:
        return {}
    problem = None
    if name not in ATTENTION:
        problem = (
            f"choose one of {', '.join(ATTENTION)}; other implementations do not take the masks of padded and packed "
            "rows, or are code on the Hub"
        )
    elif name == "packed_eager" and config.model_type not in BY_SAMPLES:
        problem = f"it is for {', '.join(BY_SAMPLES)}, and this is {config.model_type!r}; choose 'eager'"
    else:
        # Two of those of packed rows are transformers' flex attention, or the same mathematics, beside sdpa.
        required = ("flex_attention", "sdpa") if name in ("packed_flex", "packed_varlen") else (name,)
        try:
            for each in required:
                with torch.device("meta"):
                    AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=each)
        except (ImportError, ValueError) as error:
            problem = error
    if problem:
        raise ValueError(f"language.attn_implementation={name!r}: {problem}")
    return {"attn_implementation": name}


@torch.no_grad()
def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Resize embedding and output head to one row for each token, as the published code does and its weights have them.

    A new row is the mean of the others, so that every load agrees. Rows beyond the last token (padding) are dropped.
    """
    # len(tokenizer) would cut rows in use of a vocabulary with holes.
    rows, tokens = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    if tokens == rows:
        return
    model.resize_token_embeddings(tokens, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = {id(table): table for table in (embedding.weight, head.weight, getattr(head, "bias", None))}
    for table in tables.values():
        if table is not None:
            table[rows:] = table[:rows].float().mean(dim=0).to(table.dtype)
    text = f"token embedding of the language model: {rows} rows, now {tokens}; a new row is the mean of the others"
    print_log(text, "current")
