"""GGUF files, llama.cpp's format of language models, converted into Hugging Face folders with dense weights.

transformers reads the weights. It is not asked for the tokenizer: 5.17 takes `<|im_start|>` for the end of sequence of
SmolLM2 and spells Gemma's words letter by letter. The format's keys are described in docs/gguf.md of ggml-org/ggml.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mmgpt.models.generation_files import as_setting
from mmgpt.models.sentencepiece_file import (
    BPE,
    CONTROL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    convert_sentencepiece,
    first_difference,
)
from mmgpt.models.special_tokens import is_mark
from mmgpt.models.tokenizer import load_tokenizer, save_tokenizer
from mmgpt.utils.atomic import atomic_write

from .checks import check_base

# The architectures of which transformers takes all settings from a file, namely these; other settings are refused.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
SETTINGS = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.freq_base",
)
HEAD_WIDTHS = ("rope.dimension_count", "attention.key_length", "attention.value_length")
# Llama 3.1 and later have the scaling of their rotary positions as a tensor. Its factor is in the tensor's values.
ROPE_FACTORS = "rope_freqs.weight"
LLAMA3_ROPE = dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
REQUIRED = (
    "general.architecture",
    *(f"tokenizer.ggml.{name}" for name in ("model", "tokens", "token_type", "eos_token_id")),
)
ROLES = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
BYTE = 6  # type of a token that stands for a byte; the other types are those of sentencepiece
# How a byte-level tokenizer splits a text into words, which its merges do not cross, by the name in the file.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "gpt-2": None,
    "smollm": pre_tokenizers.Digits(individual_digits=True),
    "llama-bpe": pre_tokenizers.Split(Regex(WORDS.replace("DIGITS", r"\p{N}{1,3}")), "isolated"),
    "qwen2": pre_tokenizers.Split(Regex(WORDS.replace("DIGITS", r"\p{N}")), "isolated"),
}


def convert_gguf(file: str | Path, out: str | Path, dtype: str = "float32") -> None:
    """Writes a GGUF file as a Hugging Face folder: config.json, dense weights, tokenizer, generation settings.

    1. Settings, special tokens and tokenizer of the file are read; what cannot be converted is refused by its name.
    2. transformers dequantizes the weights, which have to be as many as in the file.
    3. The folder's tokenizer is loaded and compared with the file.

    Args:
        file: GGUF file of a language model.
        out: folder that does not exist yet; it appears when it is complete.
        dtype: of the weights in the folder.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package gguf is missing.
        ValueError: the folder exists, or the file cannot be converted into a model that computes the same.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {str(file)!r}")
    if Path(out).exists():
        raise ValueError(f"{out} exists already: choose a new folder")
    # 1. Everything but the weights.
    metadata, count, factors = _read(file)
    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise ValueError(f"{file} is not a whole language model: it has no {', '.join(missing)}")
    architecture, tokens = metadata["general.architecture"], metadata["tokenizer.ggml.tokens"]
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{file}: general.architecture={architecture!r} is not converted, only {', '.join(ARCHITECTURES)}: get the "
            "model as a Hugging Face folder"
        )
    special = {role: metadata.get(f"tokenizer.ggml.{key}") for role, key in ROLES.items()}
    special = {role: i for role, i in special.items() if i is not None}
    for role, i in special.items():
        if not 0 <= i < len(tokens):
            raise ValueError(f"{file}: tokenizer.ggml.{ROLES[role]}={i}, and there are {len(tokens)} tokens")
    backend = _tokenizer(metadata, special, file)
    # 2. The model.
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    _check_settings(metadata, model, file)
    if factors is not None:
        _scale_positions(model, factors, file)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters != count:
        raise ValueError(f"{file} has {count:,} weights, and a {type(model).__name__} of its settings {parameters:,}")
    rows = model.get_input_embeddings().weight.shape[0]
    if rows != len(tokens):
        raise ValueError(f"{file} has {len(tokens)} tokens, and a token embedding of {rows} rows")
    check_base(model, {}, str(file))
    vars(model.config).pop("_model_name_or_path", None)
    ends = [special["eos"], *(metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))]
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = special.get("bos"), special.get("pad")
        config.eos_token_id = as_setting([i for i in dict.fromkeys(ends) if i is not None])
    # 3. The folder.
    sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{role}_token": backend.id_to_token(i) for role, i in special.items()},
        chat_template=metadata.get("tokenizer.chat_template"),
        add_bos_token="bos" in special and metadata.get("tokenizer.ggml.add_bos_token", sentencepiece),
        clean_up_tokenization_spaces=False,
        model_max_length=model.config.max_position_embeddings,
    )
    with atomic_write(out) as folder:
        folder.mkdir()
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        _check_tokenizer(folder, metadata, special, file)


def _read(file: Path) -> tuple[dict, int, Tensor | None]:
    """The metadata of a file, the number of its weights, and the factors of its rotary frequencies."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError("GGUF files need the package gguf: pip install -r requirements/gguf.txt") from error
    try:
        reader = GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"{file} cannot be read as a GGUF file: {error}") from error
    if metadata.get("split.count", 1) > 1:
        raise ValueError(
            f"{file} is one of {metadata['split.count']} parts: join them first (llama-gguf-split --merge)"
        )
    sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    sizes.pop(ROPE_FACTORS, None)
    factors = next((torch.tensor(tensor.data) for tensor in reader.tensors if tensor.name == ROPE_FACTORS), None)
    return metadata, sum(sizes.values()), factors


def _tokenizer(metadata: Mapping, special: Mapping[str, int], file: Path) -> Tokenizer:
    """The tokenizer of a file's tokens with its merges (GPT-2's byte-level BPE) or scores (sentencepiece)."""
    kind = metadata["tokenizer.ggml.model"]
    needed = {"gpt2": "tokenizer.ggml.merges", "llama": "tokenizer.ggml.scores"}
    if kind not in needed:
        raise ValueError(f"{file}: tokenizer.ggml.model={kind!r} is not converted, only {', '.join(needed)}")
    if needed[kind] not in metadata:
        raise ValueError(f"{file}: its tokenizer has no {needed[kind]}, without which it would spell words")
    try:
        return _byte_level(metadata) if kind == "gpt2" else _sentencepiece(metadata, special)
    except Exception as error:  # the libraries raise no other class
        raise ValueError(f"{file}: its tokenizer cannot be converted: {error}") from error


def _byte_level(metadata: Mapping) -> Tokenizer:
    """A byte-level BPE of a file's tokens and merges. ValueError for a way to split texts that is not known."""
    tokens, split = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.pre")
    if split not in SPLITS:
        raise ValueError(f"tokenizer.ggml.pre={split!r} is not known, only {', '.join(SPLITS)}")
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=split == "llama-bpe")
    )
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    bytes_only = pre_tokenizers.ByteLevel(
        add_prefix_space=metadata.get("tokenizer.ggml.add_space_prefix", False), use_regex=split in ("gpt-2", "smollm")
    )
    steps = [SPLITS[split], bytes_only] if SPLITS[split] else [bytes_only]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return backend


def _sentencepiece(metadata: Mapping, special: Mapping[str, int]) -> Tokenizer:
    """The tokenizer of a sentencepiece BPE of a file's tokens and scores. ValueError where it encodes otherwise."""
    model = ModelProto()
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.unk_id = BPE, special.get("unk", 0)
    trainer.bos_id = trainer.eos_id = trainer.pad_id = -1
    trainer.byte_fallback = BYTE in metadata["tokenizer.ggml.token_type"]
    normalizer.add_dummy_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    normalizer.remove_extra_whitespaces = metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)
    pieces = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    for token, score, kind in zip(*pieces, strict=True):
        # llama.cpp writes Gemma's spaces in a row as spaces, while sentencepiece has its own character for them.
        token = token.replace(" ", SPACE) if kind == USER_DEFINED else token
        model.pieces.add(piece=token, score=score, type=kind)
    model.pieces[trainer.unk_id].type = UNKNOWN
    backend = convert_sentencepiece(model, is_mark, {})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.model"
        file.write_bytes(model.SerializeToString())
        text = first_difference(file, backend)
    if text is not None:
        raise ValueError(f"{text!r} is not encoded as by sentencepiece itself")
    return backend


def _check_settings(metadata: Mapping, model: PreTrainedModel, file: Path) -> None:
    """Raises a ValueError for settings of the architecture that transformers did not take over."""
    prefix, config = f"{metadata['general.architecture']}.", model.config
    for key, value in metadata.items():
        name = key.removeprefix(prefix)
        if name == key or name in SETTINGS or (name, value) == ("rope.scaling.type", "none"):
            continue
        if name not in HEAD_WIDTHS or value != config.head_dim:
            raise ValueError(f"{file}: transformers does not compute {key}={value!r}: get the model as a folder")


def _scale_positions(model: PreTrainedModel, factors: Tensor, file: Path) -> None:
    """Sets the scaling of Llama 3's rotary positions. ValueError where it would differ from that of a file."""
    config = model.config
    rope = {**config.rope_parameters, "rope_type": "llama3", "factor": round(factors.max().item(), 3), **LLAMA3_ROPE}
    config.rope_parameters = rope
    width = config.head_dim
    plain = rope["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    if factors.shape != scaled.shape or not torch.allclose(plain / factors, scaled, rtol=1e-3, atol=0):
        raise ValueError(f"{file}: {ROPE_FACTORS} is not the scaling of Llama 3: get the model as a folder")


def _check_tokenizer(folder: Path, metadata: Mapping, special: Mapping[str, int], file: Path) -> None:
    """Raises a ValueError unless the tokenizer loaded from a folder has the tokens and the template of a file."""
    tokenizer = load_tokenizer(str(folder))
    kinds = zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True)
    sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
    vocabulary = tokenizer.get_vocab()
    for i, (token, kind) in enumerate(kinds):
        token = token.replace(" ", SPACE) if sentencepiece and kind == USER_DEFINED else token
        if vocabulary.get(token) != i:
            raise ValueError(f"{file}: token {i}, {token!r}, has the id {vocabulary.get(token)} in the tokenizer")
    for role in ("bos", "eos"):  # load_tokenizer chooses the padding itself
        i = getattr(tokenizer, f"{role}_token_id")
        if i != special.get(role):
            raise ValueError(f"{file}: tokenizer.ggml.{ROLES[role]} is {special.get(role)}, and the tokenizer has {i}")
    if tokenizer.chat_template != metadata.get("tokenizer.chat_template"):
        raise ValueError(f"{file}: the tokenizer has another chat template than tokenizer.chat_template")
