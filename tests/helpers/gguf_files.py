"""GGUF files of tiny models, as llama.cpp's converter writes them."""

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer
from transformers import PreTrainedModel

ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma3_text": "GEMMA3"}


def byte_level_metadata(tokenizer: Tokenizer, split: str) -> dict:
    """Tokens, their types and merges of a byte-level BPE; special added tokens are control tokens."""
    state = json.loads(tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    added = {token["content"]: 3 if token["special"] else 4 for token in state["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [added.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in state["model"]["merges"]],
    }


def sentencepiece_metadata(file: Path) -> dict:
    """Tokens, their types and scores of a sentencepiece model, with spaces in a row written as spaces."""
    model = ModelProto.FromString(file.read_bytes())
    pieces = [(p.piece.replace("▁", " ") if p.type == 4 else p.piece, p.score, p.type) for p in model.pieces]
    tokens, scores, types = zip(*pieces, strict=True)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(types),
        "tokenizer.ggml.add_space_prefix": model.normalizer_spec.add_dummy_prefix,
        "tokenizer.ggml.bos_token_id": model.trainer_spec.bos_id,
        "tokenizer.ggml.eos_token_id": model.trainer_spec.eos_id,
        "tokenizer.ggml.unknown_token_id": model.trainer_spec.unk_id,
    }


def write_gguf(
    file: Path, model: PreTrainedModel, metadata: Mapping, tensors: Mapping | None = None, quantized: bool = False
) -> None:
    """Writes a model as a GGUF file.

    Args:
        model: of one of ARCHITECTURES.
        metadata: keys and values beside those of the model; a value of None leaves a key out.
        tensors: further tensors by name.
        quantized: matrices in 8 bits (Q8_0).
    """
    config = model.config
    name = gguf.MODEL_ARCH_NAMES[architecture := gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]]]
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    sizes = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if name == "llama":
        sizes |= {"rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size}
    if name in ("qwen3", "gemma3"):
        sizes |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if name == "gemma3":
        sizes["attention.sliding_window"] = config.sliding_window

    writer = gguf.GGUFWriter(file, name)
    for key, value in ({f"{name}.{key}": value for key, value in sizes.items()} | dict(metadata)).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name == "llama" and ("q_proj" in key or "k_proj" in key):
            # llama.cpp rotates neighbors, transformers the two halves of a head.
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            value = value.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        if name == "gemma3" and key.endswith("norm.weight"):
            value = value + 1
        array = value.float().numpy()
        if quantized and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(names.get_name(key, (".weight", ".bias")), gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(names.get_name(key, (".weight", ".bias")), array)
    for key, value in (tensors or {}).items():
        writer.add_tensor(key, torch.as_tensor(value).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
