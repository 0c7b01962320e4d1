"""Tokenizers of Hugging Face folders, read from the folders' own files, with the special tokens that Flamingo adds."""

import functools
import json
import logging
import re
from collections.abc import Container, Mapping
from pathlib import Path

from mmengine.logging import print_log
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mmgpt.cli.files import read_settings
from mmgpt.utils.hub import local_folder

from .sentencepiece_file import convert_sentencepiece, first_difference, named_tokens, read_sentencepiece
from .special_tokens import CONTROL, is_mark, starts_texts

IMAGE_TOKEN = "<image>"
# The order fixes the tokens' ids, and is that of the published code.
ADDED_TOKENS = ("<|endofchunk|>", IMAGE_TOKEN)
PAD_TOKEN = "<PAD>"
SEQUENCE_TOKENS = ("bos_token", "eos_token", "unk_token")
SETTINGS = ("model_max_length", "padding_side", "chat_template")


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder or Hub id, with `<|endofchunk|>`, `<image>` and, where it has no padding, `<PAD>`.

    1. tokenizer.json is used unchanged, or else the sentencepiece model in tokenizer.model is converted. transformers'
       class, which rebuilds the tokenizer of its own model, is used only where there is neither (vocab.json and
       merges.txt). Tokens of the folder's other files get the ids in these files.
    2. The start and the end of a sequence are those of the tokenizer's files, compared with config.json and
       generation_config.json; differences are logged. The start is put in front of texts as `_with_start` says.
    3. Special tokens of the base stay special, also for the tokenizers library, so that typed text never becomes one
       and decoding leaves them out. Flamingo's tokens come last.
    4. Words must be decoded with the spaces between them, and must not be spelled where they are tokens.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file cannot be read, files contradict each other, no end of sequence is named, or text is damaged.
    """
    folder = Path(local_folder(path, weights=False))
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {path!r} with a tokenizer (tokenizer.json or tokenizer.model)")

    # 1. Roles are names such as 'eos_token', or a model's own such as 'image_token'; their token may be None or ''.
    settings = _read_settings(folder)
    roles = {name: token for name, token in settings.items() if name.endswith("_token") and not isinstance(token, bool)}
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(settings.get(key), Mapping):
            roles.update(settings[key])
    roles = {name: _content(token) for name, token in roles.items()}
    lists = [settings.get(key) for key in ("extra_special_tokens", "additional_special_tokens")]
    without_role = [_content(token) for tokens in lists if isinstance(tokens, list) for token in tokens]
    without_role = [token for token in dict.fromkeys(without_role) if token]
    added = _added_tokens(folder, settings, {*roles.values(), *without_role})
    backend, roles = _read_backend(folder, roles, added)
    backend.no_truncation()
    backend.no_padding()
    vocabulary = backend.get_vocab()
    # Pieces of ordinary text stay as they are. One call adds all: each takes time in proportion to the vocabulary.
    added = dict(sorted(added.items()))
    backend.add_tokens([token for i, token in added.items() if token.special or vocabulary.get(token.content) != i])
    for i, token in added.items():
        if backend.token_to_id(token.content) != i:
            raise ValueError(
                f"{folder}: tokenizer_config.json or added_tokens.json give {token.content!r} the id {i}, which is "
                f"{backend.id_to_token(i)!r} in the vocabulary; there it would be {backend.token_to_id(token.content)}"
            )

    # 2. Start, end and padding.
    vocabulary = backend.get_vocab()
    roles["unk_token"] = roles.get("unk_token") if roles.get("unk_token") in vocabulary else None
    roles["bos_token"] = _start_of_sequence(folder, vocabulary, roles)
    roles["eos_token"] = _end_of_sequence(folder, vocabulary, roles)
    # Without padding in the folder, transformers 5 takes <unk> or <|padding|>; the published models have their own.
    padding = roles.pop("pad_token", None)
    padding = PAD_TOKEN if padding in (None, "", roles["unk_token"]) else padding
    roles = {name: token for name, token in roles.items() if token}

    # 3. Special tokens.
    control = [token for token in vocabulary if CONTROL.fullmatch(token)]
    new = [*ADDED_TOKENS, padding] if padding == PAD_TOKEN else [padding, *ADDED_TOKENS]
    existing = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    names = [*control, *roles.values(), *without_role, *new]
    special = [existing.get(name) or AddedToken(name, normalized=False) for name in names]
    for token in special:
        token.special = True
    backend.add_special_tokens(special)
    standard = {name: roles.pop(name) for name in PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES if name in roles}
    # A role without a token is saved as null, so that the tokenizer of a saved folder has none either.
    standard = {**dict.fromkeys(SEQUENCE_TOKENS), **standard}
    special = [token.content for _, token in sorted(backend.get_added_tokens_decoder().items()) if token.special]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **standard,
        pad_token=padding,
        model_specific_special_tokens=roles,
        extra_special_tokens=[t for t in special if t not in {padding, *standard.values(), *roles.values()}],
        # Cleaning up would take spaces out of an answer that training had put there.
        clean_up_tokenization_spaces=False,
        **{key: settings[key] for key in SETTINGS if settings.get(key) is not None},
    )
    _check_text(folder, tokenizer)  # 4. Text.
    return _with_start(tokenizer, settings)


# Datasets, prompts and pipelines share one tokenizer.
shared_tokenizer = functools.lru_cache(maxsize=4)(load_tokenizer)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Writes a tokenizer's folder, with `add_bos_token`, which transformers leaves out of it."""
    tokenizer.save_pretrained(folder)
    file = Path(folder) / "tokenizer_config.json"
    settings = {**read_settings(file), "add_bos_token": starts_texts(tokenizer)}
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_settings(folder: Path) -> dict:
    """tokenizer_config.json together with the older special_tokens_map.json and the files of chat templates."""
    settings, older = (
        _checked_settings(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    older = {name: value for name, value in older.items() if name.endswith("_tokens") or _content(value)}
    # transformers merges them in the same order.
    settings = {**older, **settings} if "added_tokens_decoder" in settings else {**settings, **older}
    templates = {file.stem: file for file in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = folder / "chat_template.jinja"
    if templates:
        texts = {name: file.read_text(encoding="utf-8") for name, file in templates.items()}
        settings["chat_template"] = texts["default"] if list(texts) == ["default"] else texts
    return settings


def _checked_settings(file: Path) -> dict:
    """The settings of a tokenizer's file; a ValueError names a setting of a wrong type and its value."""

    def is_token(value: object) -> bool:
        value = _content(value)
        return value is None or isinstance(value, (str, bool))

    def are_tokens(value: object) -> bool:
        values = value.values() if isinstance(value, Mapping) else value
        return isinstance(value, (list, Mapping)) and all(map(is_token, values))

    def is_decoder(value: object) -> bool:
        return isinstance(value, Mapping) and all(
            i.isdigit() and isinstance(token, Mapping) and isinstance(token.get("content"), str)
            for i, token in value.items()
        )

    checks = {
        r".*_token": (is_token, "a text, or an object with it as `content`"),
        r"(extra|additional|model_specific)_special_tokens": (are_tokens, "a list or an object of tokens"),
        "added_tokens_decoder": (is_decoder, "an object of ids, each with an object that has a text as `content`"),
        "model_max_length": (lambda value: isinstance(value, (int, float)), "a number"),
        "padding_side": (lambda value: value in ("left", "right"), "'left' or 'right'"),
        "chat_template": (lambda value: isinstance(value, (str, list)), "a text, or a list of named ones"),
    }
    settings = read_settings(file)
    for name, value in settings.items():
        for pattern, (check, expected) in checks.items():
            if value is not None and re.fullmatch(pattern, name) and not check(value):
                raise ValueError(f"{file}: {name}={value!r:.80}: expected {expected}")
    return settings


def _content(token: str | Mapping | None) -> str | None:
    """The text of a token, which files hold as a string or as an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def _added_tokens(folder: Path, settings: Mapping, special: set[str | None]) -> dict[int, AddedToken]:
    """Tokens, by id, that the files beside the vocabulary add."""
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    if "added_tokens_decoder" in settings:
        entries = settings["added_tokens_decoder"].items()
        return {int(i): AddedToken(**{f: token[f] for f in fields if f in token}) for i, token in entries}
    entries = read_settings(folder / "added_tokens.json").items()
    for token, i in entries:
        if not isinstance(i, int):
            raise ValueError(f"{folder}/added_tokens.json: {token!r} has the id {i!r}: expected a whole number")
    return {i: AddedToken(token, normalized=False, special=token in special) for token, i in entries}


def _read_backend(
    folder: Path, roles: Mapping[str, str | None], added: Mapping[int, AddedToken]
) -> tuple[Tokenizer, dict[str, str | None]]:
    """Vocabulary and normalization, and `roles` with the tokens of the vocabulary's file or of transformers' class."""
    file, model_file = folder / "tokenizer.json", folder / "tokenizer.model"
    model = read_sentencepiece(model_file)
    if file.is_file():
        backend = _with_its_ids(file.read_text(encoding="utf-8"), file)
        text = "The red circle"
        if model and first_difference(model_file, backend, [text]) is not None:
            raise ValueError(
                f"{folder}: tokenizer.json and tokenizer.model encode {text!r} differently: remove the one that the "
                "model was not trained with"
            )
        if {"bos_token", "eos_token"} <= roles.keys():
            return backend, {**roles, **(_prepended_token(backend) if roles["bos_token"] == "" else {})}
        try:
            tokens = _as_transformers(folder, roles).special_tokens_map
        except (Exception, RecursionError):
            tokens = {}  # a folder without config.json, or of a model that transformers does not know
        return backend, {**_prepended_token(backend), **_sequence_tokens(tokens, backend.get_vocab()), **roles}
    if model:
        backend = convert_sentencepiece(model, is_mark, {i: token.content for i, token in added.items()})
        text = first_difference(model_file, backend)
        if text is not None:
            raise ValueError(f"{model_file}: {text!r} is not encoded as by sentencepiece itself; save a tokenizer.json")
        # Folders of early 2023 name their tokens ''. A start that is null is left out on purpose.
        roles = {name: token for name, token in roles.items() if token or (token is None and name == "bos_token")}
        return backend, {**named_tokens(model), **roles}
    try:
        tokenizer = _as_transformers(folder, roles)
    except (Exception, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{folder}: transformers makes no tokenizer of this folder: {reason}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"{folder}: a {type(tokenizer).__name__} gives no positions of its tokens in a text; save a tokenizer.json"
        )
    vocabulary = {*read_settings(folder / "vocab.json"), *(token.content for token in added.values())}
    backend = _with_its_ids(tokenizer.backend_tokenizer.to_str(), folder)
    return backend, {**_sequence_tokens(tokenizer.special_tokens_map, vocabulary), **roles}


def _as_transformers(folder: Path, roles: Mapping[str, str | None]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer  # imports generation, which the data does without

    # transformers would look for the id of an empty token in an endless loop.
    empty = {name: None for name, token in roles.items() if token == ""}
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **empty)


def _sequence_tokens(tokens: Mapping[str, str], vocabulary: Container[str]) -> dict[str, str]:
    """The start, end and unknown tokens of a class that are in a vocabulary; transformers would add the others."""
    return {name: token for name, token in tokens.items() if name in SEQUENCE_TOKENS and token in vocabulary}


def _prepended_token(backend: Tokenizer) -> dict[str, str]:
    """The `bos_token` that a tokenizer puts in front of each text, if any."""
    encoding = backend.encode("a")
    starts = encoding.special_tokens_mask[:1] == [1] and 0 in encoding.special_tokens_mask
    return {"bos_token": encoding.tokens[0]} if starts else {}


def _with_its_ids(text: str, file: Path) -> Tokenizer:
    """The tokenizer of the text of a tokenizer.json, with the ids that it has for its added tokens, and without gaps.

    The tokenizers library ignores these ids: after a gap in the vocabulary it assigns others, even such as belong to
    other tokens. `file` is for messages.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises no other class
        raise ValueError(f"{file}: the tokenizers library cannot read it: {error}") from error
    ids, start = tokenizer.get_vocab(), text.find('"added_tokens"')
    # Only this list is parsed, since the vocabulary would take long in Python.
    added = [] if start < 0 else json.JSONDecoder().raw_decode(text, text.index("[", start))[0]
    added_ids = {token["content"]: token["id"] for token in added}
    if added_ids.items() <= ids.items() and len(ids) == max(ids.values(), default=-1) + 1:
        return tokenizer
    state = json.loads(text)
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict):
        vocabulary.update(added_ids)
        used = set(vocabulary.values())
        vocabulary.update({f"<|unused_{i}|>": i for i in range(max(used)) if i not in used})
        if len(set(vocabulary.values())) == len(vocabulary):
            return Tokenizer.from_str(json.dumps(state))
    raise ValueError(f"{file}: its added tokens have ids that are not free: {added_ids.items() - ids.items()}")


def _end_of_sequence(folder: Path, vocabulary: Mapping[str, int], roles: Mapping[str, str | None]) -> str:
    """The token that ends each answer.

    The end that the tokenizer's files name is used, or that of the model's files where the former cannot be right: it
    is missing, it starts texts as well, or its id is beyond the model's token table (as in folders converted from GGUF
    files).
    """
    eos, configured, rows = roles.get("eos_token"), *_configured_tokens(folder, vocabulary, "eos")
    # Configs of early 2023 have the ids of <unk> and <s> instead of those of <s> and </s>.
    candidates = [token for token in configured if token not in (roles["bos_token"], roles["unk_token"])]
    if eos not in vocabulary and not candidates:
        reason = f"{eos!r} is not in its vocabulary" if eos else "eos_token is not set"
        raise ValueError(
            f"{folder}: the tokenizer has no end of sequence, without which no answer ends ({reason}): set eos_token "
            "in tokenizer_config.json to the token that ended texts when the model was trained"
        )
    if eos in configured or (eos in vocabulary and not configured):
        return eos
    doubtful = eos not in vocabulary or eos == roles["bos_token"] or vocabulary[eos] >= rows
    choice = candidates[0] if candidates and doubtful else eos
    _warn_of_difference(folder, "eos", eos, vocabulary, configured, choice)
    return choice


def _start_of_sequence(folder: Path, vocabulary: Mapping[str, int], roles: Mapping[str, str | None]) -> str | None:
    """The token in front of each text; None where the tokenizer's files name none, such as Qwen's."""
    bos, configured, rows = roles.get("bos_token"), *_configured_tokens(folder, vocabulary, "bos")
    if not bos or bos in configured or (bos in vocabulary and not configured):
        return bos or None
    candidates = [token for token in configured if token not in (roles.get("eos_token"), roles["unk_token"])]
    choice = bos if bos in vocabulary and vocabulary[bos] < rows else next(iter(candidates), None)
    _warn_of_difference(folder, "bos", bos, vocabulary, configured, choice)
    return choice


def _with_start(tokenizer: PreTrainedTokenizerFast, settings: Mapping) -> PreTrainedTokenizerFast:
    """The tokenizer itself, which puts its start of sequence in front of texts where the folder says so.

    That is `add_bos_token`, or the post-processor of tokenizer.json. Where both say nothing, the vocabularies of
    sentencepiece have a start in front, as LLaMA's. SmolLM2 and GPT-2 name a start that they put in front of no text.
    """
    stated = settings.get("add_bos_token")
    starts = stated if isinstance(stated, bool) else starts_texts(tokenizer) or "▁" in tokenizer.get_vocab()
    if (starts and tokenizer.bos_token is not None) != starts_texts(tokenizer):
        tokenizer.add_bos_token = starts  # in its post-processor
    return tokenizer


def _configured_tokens(folder: Path, vocabulary: Mapping[str, int], role: str) -> tuple[dict[str, str], float]:
    """The tokens of a role in the model's files, each with the file's name, and the rows of the model's token table."""
    names, tokens = {i: token for token, i in vocabulary.items()}, {}
    configs = {name: read_settings(folder / name) for name in ("config.json", "generation_config.json")}
    for name, config in configs.items():
        ids = config.get(f"{role}_token_id")
        for i in ids if isinstance(ids, list) else [ids]:
            if isinstance(i, int) and i in names:
                tokens.setdefault(names[i], name)
    return tokens, configs["config.json"].get("vocab_size") or float("inf")


def _warn_of_difference(
    folder: Path,
    role: str,
    token: str | None,
    vocabulary: Mapping[str, int],
    configured: Mapping[str, str],
    choice: str | None,
) -> None:
    setting = f"{token!r} ({vocabulary.get(token, 'not in its vocabulary')})" if token else "not set"
    others = " and ".join(f"{file} has {other!r} ({vocabulary[other]})" for other, file in configured.items())
    _warn(
        f"{folder}: the tokenizer's {role}_token is {setting}, {others or 'the model names none'}; {choice!r} is used"
    )


@functools.cache
def _warn(text: str) -> None:
    """Logs a warning once per process, since the model and each dataset load the tokenizer."""
    print_log(text, "current", logging.WARNING)


def _check_text(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raises a ValueError where words are spelled although they are tokens, or the spaces between them are lost."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def decoded(text: str) -> str:
        return tokenizer.decode(ids(text)).strip().casefold()

    words, vocabulary = ("the", "red", "circle", "is", "a", "of", "1"), tokenizer.get_vocab()
    for word in words[:3]:
        token = next((token for token in (word, f"▁{word}", f"Ġ{word}") if token in vocabulary), None)
        if token and min(len(ids(word)), len(ids(f" {word}"))) >= len(word):
            raise ValueError(
                f"{folder}: the tokenizer's merges are missing: it spells {word!r}, but has a token {token!r}"
            )
    words = [word for word in words if decoded(word) == word]
    text = " ".join(words)
    if decoded(text).split() != words:
        raise ValueError(
            f"{folder}: the tokenizer loses spaces between words: {text!r} is decoded as {decoded(text)!r}"
        )
