"""Folders with the chat templates of published models, and tokenizers of their families that are trained here."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmgpt.models.special_tokens import special_tokens
from mmgpt.models.tokenizer import load_tokenizer
from tests.conftest import tiny_tokenizer
from tests.helpers.tokenizer_folders import byte_level, save

DATA = Path(__file__).parents[1] / "data" / "chat_templates"
PRIVATE = 0xE000  # characters for special tokens of the reference

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Templates that mark what the assistant says, for the mask of transformers: what is replaced in a template, by what.
GENERATION = {
    "smollm2": (
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
        "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
        "{% endif %}{{'\n'}}",
    ),
    "qwen2_5": (
        r"{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}",
        r"{{- '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}{% generation %}"
        r"{{- message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{- message.content + '<|im_end|>' }}"
        r"{% endif %}{{- '\n' }}",
    ),
    "llama3": (
        "{{ content }}",
        r"{% if message['role'] == 'assistant' %}{% set head = '<|start_header_id|>assistant<|end_header_id|>\n\n' %}"
        "{{ head }}{% generation %}{{ content[head|length:] }}{% endgeneration %}{% else %}{{ content }}{% endif %}",
    ),
    "gemma": (
        r"{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
        r"{{ '<start_of_turn>' + role + '\n' }}{% if role == 'model' %}{% generation %}"
        "{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{% else %}"
        r"{{ message['content'] | trim + '<end_of_turn>' }}{% endif %}{{ '\n' }}",
    ),
    "mistral": (
        "{{ message['content'] + eos_token}}",
        "{% generation %}{{ message['content'] + eos_token}}{% endgeneration %}",
    ),
    "llama2": (
        "{{ ' '  + content.strip() + ' ' + eos_token }}",
        "{% generation %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endgeneration %}",
    ),
    "phi3": (
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}",
        "{{'<|assistant|>\n'}}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{'\n'}}",
    ),
    "zephyr": (
        "{{ '<|assistant|>\n'  + message['content'] + eos_token }}",
        "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '' }}",
    ),
}


def metaspace() -> Tokenizer:
    """A tokenizer like Llama 2's as transformers converts it today: a space at the start of a sequence alone."""
    raw = tiny_tokenizer()
    raw.normalizer, raw.pre_tokenizer = None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return raw


def without_prefix() -> Tokenizer:
    """A tokenizer like Gemma's: no space in front of texts, and line breaks among its added tokens."""
    raw = tiny_tokenizer()
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.add_tokens([AddedToken(token, normalized=False) for token in ("\n", "\n\n", "▁▁", "<b>")])
    return raw


def added(raw: Tokenizer, *names: str, **flags: bool) -> Tokenizer:
    raw.add_special_tokens([AddedToken(name, normalized=False, **flags) for name in names])
    return raw


# Each family's tokenizer, its start and its end of sequence.
FAMILIES = {
    "smollm2": (lambda: byte_level(CHATML), "<|im_start|>", "<|im_end|>"),
    "qwen2_5": (lambda: byte_level(CHATML), None, "<|im_end|>"),
    "qwen3": (lambda: _with_marks(byte_level(CHATML)), None, "<|im_end|>"),
    "llama3": (
        lambda: byte_level(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": (lambda: added(without_prefix(), "<start_of_turn>", "<end_of_turn>"), "<s>", "</s>"),
    "mistral": (tiny_tokenizer, "<s>", "</s>"),
    "llama2": (metaspace, "<s>", "</s>"),
    "phi3": (
        lambda: added(metaspace(), "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", rstrip=True),
        "<s>",
        "</s>",
    ),
    "zephyr": (metaspace, "<s>", "</s>"),
}


def _with_marks(raw: Tokenizer) -> Tokenizer:
    raw.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in ("<think>", "</think>")])
    return raw


def chat_folder(name: str, folder: Path, generation: bool = False) -> str:
    """A folder with the tokenizer and the chat template of a family, the latter with marked answers where asked for."""
    make, bos, eos = FAMILIES[name]
    source = (DATA / f"{name}.jinja").read_text(encoding="utf-8")
    if generation:
        old, new = GENERATION[name]
        assert source.count(old) == 1
        source = source.replace(old, new)
    raw = make()
    # Llama 2's and Gemma's tokenizers have their special tokens in the vocabulary, and mark them in the file.
    added(raw, *(token for token in ("<unk>", "<s>", "</s>") if raw.token_to_id(token) is not None))
    save(
        raw, folder, config={}, tokenizer_config=dict(bos_token=bos, eos_token=eos, unk_token=None, add_bos_token=False)
    )
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return str(folder)


def reference(path: str) -> tuple[PreTrainedTokenizerFast, dict[str, str]]:
    """The tokenizer of a folder with private characters for its special tokens, and these characters by the tokens.

    What transformers makes of a conversation with it is what the conversation should become, since nothing that is
    typed is a special token of it.
    """
    tokenizer = load_tokenizer(path)
    renamed = {name: chr(PRIVATE + number) for number, name in enumerate(special_tokens(tokenizer))}
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["post_processor"] = None
    for token in state["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
    state["model"]["vocab"] = {renamed.get(name, name): i for name, i in state["model"]["vocab"].items()}
    if state["model"].get("unk_token"):
        state["model"]["unk_token"] = renamed.get(state["model"]["unk_token"])
    source = tokenizer.chat_template
    for name in sorted(renamed, key=len, reverse=True):
        source = source.replace(name, renamed[name])
    roles = {role: renamed[token] for role, token in tokenizer.special_tokens_map.items() if token in renamed}
    roles = {role: token for role, token in roles.items() if role in ("bos_token", "eos_token", "unk_token")}
    raw = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=source, **roles), renamed
