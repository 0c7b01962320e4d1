"""Report on a language model or an image encoder before it is used: sizes, tokens, template, preprocessing, memory.

Weights are not loaded: the model is built on torch's meta device, and dtypes come from the headers of the files.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import open_clip
import timm
import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel, PreTrainedTokenizerFast

from mmgpt.cli.files import read_settings
from mmgpt.utils.hub import local_folder

from .generation import answer_ends
from .generation_files import CONFIG, GENERATION, as_ids
from .language import is_tied, load_language_model
from .memory.sizes import vision_without_weights
from .special_tokens import CONTROL
from .tokenizer import ADDED_TOKENS, PAD_TOKEN, load_tokenizer
from .vision.preprocessing import image_preprocessing
from .weights.checks import stored_dtypes

ROUND_TRIPS = (
    "The red circle is at the left.",
    " two  spaces,\n\ta tab and lines\n",
    "In 2023 it cost 1,234.50 $ (12%)!",
    "Ünïcödé, 你好, 🙂",
    "def f(x):\n    return x[0] != 1",
)
Report = dict[str, dict[str, str]]  # title of a table -> name of a row -> its text


def describe(name: str) -> Report:
    """The report on a language model or an image encoder.

    Args:
        name: folder, or id on the Hub, of which only the small files are downloaded; an image encoder also by its name
            in open_clip or timm.

    Raises:
        FileNotFoundError: there is no such folder, or it has no config.json.
        ValueError: this project or its libraries cannot use the model; says why.
    """
    folder = Path(local_folder(name, weights=False))
    model_type = read_settings(folder / CONFIG).get("model_type")
    if model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type] in MODEL_FOR_CAUSAL_LM_MAPPING:
        return describe_language(name, folder)
    return describe_vision(encoder_config(name, folder), folder)


def describe_language(name: str, folder: Path) -> Report:
    """The report on a language model with its tokenizer, see `describe`; `folder` is that of its name."""
    with torch.device("meta"):
        model = load_language_model(str(folder), pretrained=False)
    tokenizer = load_tokenizer(str(folder))
    config, count, stored = model.config.get_text_config(), _count(model), stored_dtypes(folder)
    embedding = model.get_input_embeddings().weight
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    own_tokens = tokenizer.get_vocab().keys() - {*ADDED_TOKENS, PAD_TOKEN}
    sizes = {
        "family": f"{model.config.model_type} ({type(model).__name__})",
        "folder": str(folder),
        "parameters": f"{count:,}, {embedding.numel():,} of them in the token embedding",
        "stored as": _dtypes(stored, folder),
        "output head": _output_head(model, stored),
        "layers, width": f"{config.num_hidden_layers} of {config.hidden_size}",
        "attention heads": f"{heads} of {head_width}, with {kv_heads} key/value heads",
        "vocabulary": f"{len(embedding):,} rows, {len(own_tokens):,} tokens",
        "positions": f"{config.max_position_embeddings:,}",
    }
    local = sum(kind == "sliding_attention" for kind in getattr(config, "layer_types", None) or ())
    if local:
        sizes["sliding window"] = f"{config.sliding_window} tokens, in {local} of {config.num_hidden_layers} layers"
    cache = 2 * 2 * config.num_hidden_layers * kv_heads * head_width * 1000
    return {
        "Language model": sizes,
        "Special tokens": _special_tokens(folder, tokenizer),
        "Chat template": _chat_template(tokenizer),
        "Tokenizer: text -> tokens -> text": _round_trips(tokenizer),
        "Memory": {
            **_memory(count),
            "KV cache in bfloat16": f"{cache / 2**20:,.1f} MiB for 1,000 tokens",
            "training": f"python tools/analysis_tools/memory_plan.py CONFIG --cfg-options language_model={name}",
        },
    }


def describe_vision(config: Mapping, folder: Path) -> Report:
    """The report on an image encoder, see `describe`.

    Args:
        config: of the encoder, as a model's `vision` is.
        folder: of its `path`, if it has one.
    """
    vision = vision_without_weights(config)
    (rows, columns), (height, width) = vision.grid, vision.image_size
    sizes = {
        "config": f"vision=dict({', '.join(f'{key}={value!r}' for key, value in config.items())})",
        "network": type(vision.tower).__name__,
        "parameters": f"{_count(vision):,}",
        "stored as": _dtypes(stored_dtypes(folder), folder) if "path" in config else "a name has no files of its own",
        "images": f"{height} x {width}",
        "features": f"{rows * columns} of {vision.width}, from the last layer, in a grid of {rows} x {columns}",
        "dropped tokens": f"{vision.prefix_tokens} (class, distillation, registers)",
    }
    try:
        settings = image_preprocessing(config)
        preprocessing = {key: str(value) for key, value in settings.items() if value is not None}
    except (ValueError, FileNotFoundError) as error:
        preprocessing = {"": f"unknown: {error}"}
    return {"Image encoder": sizes, "Preprocessing": preprocessing, "Memory": _memory(_count(vision))}


def encoder_config(name: str, folder: Path) -> dict:
    """The config of the image encoder that a folder, a Hub id, or a name of open_clip or timm stands for.

    Args:
        name: as the user gives it.
        folder: of the name; one that does not exist for a name of open_clip or timm.

    Raises:
        FileNotFoundError: the name stands for none.
    """
    settings = read_settings(folder / CONFIG)
    if (folder / "open_clip_config.json").is_file():
        return dict(type="OpenCLIPVision", path=name)
    if "model_type" in settings:
        return dict(type="HFVision", path=name)
    if "architecture" in settings:
        return dict(type="TimmVision", path=name)
    if name.endswith(".json") and folder.is_file() or name in open_clip.list_models():
        return dict(type="OpenCLIPVision", model=name)
    if timm.is_model(name):
        return dict(type="TimmVision", model=name)
    raise FileNotFoundError(
        f"{name!r} is not a folder with config.json or open_clip_config.json, a Hub id (owner/model), nor a name that "
        "open_clip or timm knows"
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _memory(count: int) -> dict[str, str]:
    """Rows for the weights."""
    sizes = {"float32": 4, "bfloat16": 2}
    return {f"weights in {dtype}": f"{count * size / 2**30:.2f} GiB" for dtype, size in sizes.items()}


def _dtypes(stored: Mapping[str, torch.dtype], folder: Path) -> str:
    """The dtypes of the stored tensors, or that of config.json where there are none."""
    counts = Counter(str(dtype).removeprefix("torch.") for dtype in stored.values())
    if counts:
        return ", ".join(f"{dtype} ({number} tensors)" for dtype, number in counts.most_common())
    settings = read_settings(folder / CONFIG)
    dtype = settings.get("dtype") or settings.get("torch_dtype") or "unknown dtype"
    return f"{dtype}, according to {CONFIG}: the weights are not here"


def _output_head(model: PreTrainedModel, stored: Mapping[str, torch.dtype]) -> str:
    """Whether the output head is the token embedding, according to config.json and to the names of the tensors."""
    if not is_tied(model):
        return "a table of its own"
    head = model.get_output_embeddings()
    name = next(f"{name}.weight" for name, module in model.named_modules() if module is head)
    if name in stored:
        return f"tied according to {CONFIG}, but the files have {name}: it is used where it differs"
    return "the token embedding (tied)"


def _special_tokens(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Rows for start, end and padding, each with the number of files that agree, and those that do not."""
    rows, titles = {}, {"bos": "start of a text", "eos": "end of a text", "pad": "padding"}
    for role, title in titles.items():
        token, i = getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id")
        rows[title] = f"{token!r} ({i})" if token else "none"
        agreeing = 0
        for file in ("tokenizer_config.json", CONFIG, GENERATION):
            settings = read_settings(folder / file)
            value = settings.get(f"{role}_token", settings.get(f"{role}_token_id"))
            value = value.get("content") if isinstance(value, Mapping) else value
            if value is None:
                continue
            ids = [tokenizer.convert_tokens_to_ids(value)] if isinstance(value, str) else as_ids(value)
            if i in ids:
                agreeing += 1
            else:
                names = ", ".join(f"{tokenizer.convert_ids_to_tokens(other)!r} ({other})" for other in ids)
                rows[title] += f"; {file} has {names}"
        rows[title] += f"; {agreeing} files agree"
    ends = answer_ends(tokenizer, dict(path=str(folder)))
    rows["an answer ends with"] = ", ".join(f"{tokenizer.convert_ids_to_tokens(i)!r} ({i})" for i in ends)
    return rows


def _chat_template(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Rows for the template's roles, the end of an assistant's turn, and its marks that are not tokens."""
    template = tokenizer.chat_template
    if not template:
        return {"": "none"}

    errors = []

    def render(*roles: str) -> str:
        try:
            messages = [{"role": role, "content": f"words of {role}"} for role in roles]
            return tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # a template may raise anything
            errors.append(error)
            return ""

    talk = render("user", "assistant")
    rows = {"names": ", ".join(template)} if isinstance(template, Mapping) else {}
    if errors:
        return {**rows, "roles": f"it cannot word a question and its answer: {errors[0]}"}
    roles = ["user", "assistant"] if talk else []
    roles += ["system"] if "words of system" in render("system", "user", "assistant") else []
    roles += ["tool"] if "words of tool" in render("user", "assistant", "tool") else []
    rows["roles"] = ", ".join(roles) or "it cannot word a question and its answer"
    _, words, end = talk.partition("words of assistant")
    rows["after an answer"] = repr(end) if words else "nothing: the answer is left out"
    spelled = sorted({*CONTROL.findall(talk)} - tokenizer.get_vocab().keys())
    rows["marks"] = f"not tokens, so spelled out: {', '.join(spelled)}" if spelled else "all are tokens"
    return rows


def _round_trips(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Rows for texts: the number of tokens, and what decoding gives where it differs."""
    rows = {}
    for text in (*ROUND_TRIPS, f"typed {tokenizer.eos_token}"):
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        decoded = tokenizer.decode(ids)
        rows[repr(text)] = f"{len(ids)} tokens" + (f", becomes {decoded!r}" if decoded != text else "")
        if tokenizer.eos_token_id in ids:
            rows[repr(text)] += ", one of them special"
    return rows
