"""Tokenizers of Hugging Face folders, read from their own files, with the special tokens that Flamingo adds."""

import functools
import json
import logging
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from mmengine.logging import print_log
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .generation_files import read_settings
from .sentencepiece_file import convert_sentencepiece, difference, own_tokens, read_sentencepiece

IMAGE_TOKEN = "<image>"
# In the order in which the published code adds them: the order fixes their ids.
ADDED_TOKENS = ("<|endofchunk|>", IMAGE_TOKEN)
PAD_TOKEN = "<PAD>"
# A token that looks like <|im_end|> is special, whatever its file says of it.
CONTROL = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>")
# Added tokens that look like these are marks of a template or of a tool, such as <think>. Others are ordinary text, and
# so are numbers in brackets and the elements of HTML that Gemma's vocabulary has in one piece.
MARK = re.compile(r"<[^<>\s]+>|\[(?!\d+\])[^\[\]\s]+\]")
HTML = re.compile(
    r"</?(a|b|blockquote|br|caption|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|sub|sup|table|tbody|td|tfoot|th"
    r"|thead|tr|u|ul)/?>"
)
SEQUENCE = ("bos_token", "eos_token", "unk_token")
KEPT_SETTINGS = ("model_max_length", "padding_side", "chat_template")


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a Hugging Face folder with `<|endofchunk|>`, `<image>` and, for one without, `<PAD>`.

    1. tokenizer.json is taken as it stands, else the sentencepiece model in tokenizer.model is converted. Only where
       neither is there (vocab.json and merges.txt) is transformers' class asked: it would rebuild the tokenizer as that
       of its own model, whatever the file says. Tokens of the folder's other files get the ids given there.
    2. The first and the last token of a text are those that the tokenizer's files name, compared with config.json and
       generation_config.json; what differs is logged.
    3. Special tokens of the base stay special, also for the tokenizers library, which decides by that what can be typed
       and what decoding leaves out. Those of Flamingo come last.
    4. Words must come back with the spaces between them, and must not be spelt where they are tokens.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file cannot be read, files contradict each other, no end of sequence is known, or text is damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {path!r} with a tokenizer (tokenizer.json or tokenizer.model)")
    settings = _read_settings(folder)
    named, extra = _named_tokens(settings), _extra_tokens(settings)
    added = _added_tokens(folder, settings, {*named.values(), *extra})
    backend, named = _read_backend(folder, named, added)
    _add_with_ids(folder, backend, added)

    known = backend.get_vocab()
    named["unk_token"] = named.get("unk_token") if named.get("unk_token") in known else None
    named["bos_token"] = _start_of_sequence(folder, known, named)
    named["eos_token"] = _end_of_sequence(folder, known, named)
    # Where the folder names no padding, transformers 5 takes <unk> (Llama) or <|padding|> (GPT-NeoX, MPT); the
    # published models have a token of their own.
    padding = named.pop("pad_token", None)
    padding = PAD_TOKEN if padding in (None, "", named["unk_token"]) else padding
    named = {name: token for name, token in named.items() if token}

    control = [token for token in known if CONTROL.fullmatch(token)]
    new = [*ADDED_TOKENS, padding] if padding == PAD_TOKEN else [padding, *ADDED_TOKENS]
    _make_special(backend, [*control, *named.values(), *extra, *new])
    standard = {name: named.pop(name) for name in PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES if name in named}
    # Saved as null, so that a folder that is written has no start either.
    standard = {**dict.fromkeys(SEQUENCE), **standard}
    special = [token.content for _, token in sorted(backend.get_added_tokens_decoder().items()) if token.special]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **standard,
        pad_token=padding,
        model_specific_special_tokens=named,
        extra_special_tokens=[t for t in special if t not in {padding, *standard.values(), *named.values()}],
        # Cleaning up would take spaces out of an answer that training had put there.
        clean_up_tokenization_spaces=False,
        **{key: settings[key] for key in KEPT_SETTINGS if settings.get(key) is not None},
    )
    _check_text(folder, tokenizer)
    return tokenizer


def is_mark(token: str) -> bool:
    """Whether an added token that is not special is a mark, which what users type never becomes."""
    return MARK.fullmatch(token) is not None and not HTML.fullmatch(token)


def _read_settings(folder: Path) -> dict:
    """tokenizer_config.json together with the older special_tokens_map.json and the files of chat templates."""
    settings, older = (read_settings(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json"))
    older = {name: value for name, value in older.items() if name.endswith("_tokens") or _content(value)}
    # In this order transformers reads them, too.
    settings = {**older, **settings} if "added_tokens_decoder" in settings else {**settings, **older}
    templates = {file.stem: file for file in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = folder / "chat_template.jinja"
    if templates:
        texts = {name: file.read_text(encoding="utf-8") for name, file in templates.items()}
        settings["chat_template"] = texts["default"] if list(texts) == ["default"] else texts
    return settings


def _content(token: str | Mapping | None) -> str | None:
    """The text of a token, which files hold as a string or as an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def _named_tokens(settings: Mapping) -> dict[str, str | None]:
    """Tokens by their role, `eos_token` or a model's own such as `image_token`; None or '' for a role that none has."""
    roles = {name: token for name, token in settings.items() if name.endswith("_token") and not isinstance(token, bool)}
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(settings.get(key), Mapping):
            roles.update(settings[key])
    return {name: _content(token) for name, token in roles.items()}


def _extra_tokens(settings: Mapping) -> list[str]:
    """Special tokens without a role, in the order of their files."""
    lists = [settings.get(key) for key in ("extra_special_tokens", "additional_special_tokens")]
    tokens = [_content(token) for tokens in lists if isinstance(tokens, list) for token in tokens]
    return [token for token in dict.fromkeys(tokens) if token]


def _added_tokens(folder: Path, settings: Mapping, special: set[str | None]) -> dict[int, AddedToken]:
    """Tokens that the files beside the vocabulary add, by the ids that they give."""
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    if "added_tokens_decoder" in settings:
        given = settings["added_tokens_decoder"].items()
        return {int(i): AddedToken(**{f: token[f] for f in fields if f in token}) for i, token in given}
    given = read_settings(folder / "added_tokens.json").items()
    return {i: AddedToken(token, normalized=False, special=token in special) for token, i in given}


def _read_backend(
    folder: Path, named: Mapping[str, str | None], added: Mapping[int, AddedToken]
) -> tuple[Tokenizer, dict[str, str | None]]:
    """Vocabulary and normalisation; and `named` with those that the vocabulary's file or transformers' class knows."""
    file, model_file = folder / "tokenizer.json", folder / "tokenizer.model"
    model = read_sentencepiece(model_file)
    if file.is_file():
        backend = _read_tokenizers_file(file)
        text = "The red circle"
        if model and difference(model_file, backend, [text]) is not None:
            raise ValueError(
                f"{folder}: tokenizer.json and tokenizer.model encode {text!r} differently: remove the one that the "
                "model was not trained with"
            )
        if {"bos_token", "eos_token"} <= named.keys():
            return backend, {**named, **(_start_in_front(backend) if named["bos_token"] == "" else {})}
        try:
            tokens = _as_transformers(folder, named).special_tokens_map
        except (Exception, RecursionError):
            tokens = {}  # a folder without config.json, or of a model that transformers does not know
        return backend, {**_start_in_front(backend), **_roles(tokens, backend.get_vocab()), **named}
    if model:
        backend = convert_sentencepiece(model, is_mark, {i: token.content for i, token in added.items()})
        text = difference(model_file, backend)
        if text is not None:
            raise ValueError(f"{model_file}: {text!r} is not encoded as by sentencepiece itself; save a tokenizer.json")
        # Folders of early 2023 name their tokens ''. A start that is null is none on purpose.
        told = {name: token for name, token in named.items() if token or (token is None and name == "bos_token")}
        return backend, {**own_tokens(model), **told}
    try:
        tokenizer = _as_transformers(folder, named)
    except (Exception, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{folder}: transformers makes no tokenizer of this folder: {reason}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"{folder}: a {type(tokenizer).__name__} does not tell where its tokens begin in a text")
    known = {*read_settings(folder / "vocab.json"), *(token.content for token in added.values())}
    return tokenizer.backend_tokenizer, {**_roles(tokenizer.special_tokens_map, known), **named}


def _as_transformers(folder: Path, named: Mapping[str, str | None]) -> PreTrainedTokenizerBase:
    # transformers would look for the id of an empty token for ever.
    empty = {name: None for name, token in named.items() if token == ""}
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **empty)


def _roles(tokens: Mapping[str, str], known: Container[str]) -> dict[str, str]:
    """Those of a class's own tokens that a vocabulary has; transformers adds the others to it."""
    return {name: token for name, token in tokens.items() if name in SEQUENCE and token in known}


def _start_in_front(backend: Tokenizer) -> dict[str, str]:
    """The `bos_token` that a tokenizer puts in front of a text by itself, if it does."""
    encoding = backend.encode("a")
    starts = encoding.special_tokens_mask[:1] == [1] and 0 in encoding.special_tokens_mask
    return {"bos_token": encoding.tokens[0]} if starts else {}


def _read_tokenizers_file(file: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, with the ids that it gives to its added tokens.

    The tokenizers library ignores these ids: behind a gap in the vocabulary it would give out others, also such as
    another token has.
    """
    text = file.read_text(encoding="utf-8")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises no other
        raise ValueError(f"{file}: the tokenizers library cannot read it: {error}") from error
    known, start = tokenizer.get_vocab(), text.find('"added_tokens"')
    # Only this list is read: Python takes long for the vocabulary.
    added = [] if start < 0 else json.JSONDecoder().raw_decode(text, text.index("[", start))[0]
    ids = {token["content"]: token["id"] for token in added}
    if ids.items() <= known.items() and len(known) == max(known.values(), default=-1) + 1:
        return tokenizer
    state = json.loads(text)
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict):
        vocabulary.update(ids)
        taken = set(vocabulary.values())
        vocabulary.update({f"<|unused_{i}|>": i for i in range(max(taken)) if i not in taken})
        if len(set(vocabulary.values())) == len(vocabulary):
            return Tokenizer.from_str(json.dumps(state))
    raise ValueError(f"{file}: its added tokens have ids that are not free: {ids.items() - known.items()}")


def _add_with_ids(folder: Path, backend: Tokenizer, added: Mapping[int, AddedToken]) -> None:
    backend.no_truncation()
    backend.no_padding()
    known = backend.get_vocab()
    # What stays ordinary text is encoded as before. All in one call: each takes as long as the vocabulary is large.
    backend.add_tokens([token for i, token in sorted(added.items()) if token.special or known.get(token.content) != i])
    for i, token in sorted(added.items()):
        if backend.token_to_id(token.content) != i:
            raise ValueError(
                f"{folder}: tokenizer_config.json or added_tokens.json give {token.content!r} the id {i}, which is "
                f"{backend.id_to_token(i)!r} in the vocabulary; there it would be {backend.token_to_id(token.content)}"
            )


def _make_special(backend: Tokenizer, tokens: Iterable[str]) -> None:
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    special = [known.get(name) or AddedToken(name, normalized=False) for name in tokens]
    for token in special:
        token.special = True
    backend.add_special_tokens(special)  # in one call: each takes as long as the vocabulary is large


def _end_of_sequence(folder: Path, known: Mapping[str, int], named: Mapping[str, str | None]) -> str:
    """The token at the end of each answer.

    That of the tokenizer's files, but the model's where theirs cannot be: it is missing, it begins texts as well, or
    the model's table ends before it (folders made from GGUF files are like that).
    """
    told, configured, rows = named.get("eos_token"), *_configured(folder, known, "eos")
    # Configs of early 2023 have the ids of <unk> and <s> in place of those of <s> and </s>.
    possible = [token for token in configured if token not in (named["bos_token"], named["unk_token"])]
    if told not in known and not possible:
        reason = f"{told!r} is not in its vocabulary" if told else "eos_token is not set"
        raise ValueError(
            f"{folder}: the tokenizer has no end of sequence, without which no answer ends ({reason}): set eos_token "
            "in tokenizer_config.json to the token that ended texts when the model was trained"
        )
    if told in configured or (told in known and not configured):
        return told
    doubtful = told not in known or told == named["bos_token"] or known[told] >= rows
    chosen = possible[0] if possible and doubtful else told
    _say_difference(folder, "eos", told, known, configured, chosen)
    return chosen


def _start_of_sequence(folder: Path, known: Mapping[str, int], named: Mapping[str, str | None]) -> str | None:
    """The token in front of each text; None where the tokenizer's files name none, as Qwen's."""
    told, configured, rows = named.get("bos_token"), *_configured(folder, known, "bos")
    if not told or told in configured or (told in known and not configured):
        return told or None
    possible = [token for token in configured if token not in (named.get("eos_token"), named["unk_token"])]
    chosen = told if told in known and known[told] < rows else next(iter(possible), None)
    _say_difference(folder, "bos", told, known, configured, chosen)
    return chosen


def _configured(folder: Path, known: Mapping[str, int], role: str) -> tuple[dict[str, str], float]:
    """Tokens that the model's files have for a role, with the names of the files, and the rows of the model's table."""
    names, tokens = {i: token for token, i in known.items()}, {}
    configs = {name: read_settings(folder / name) for name in ("config.json", "generation_config.json")}
    for name, config in configs.items():
        ids = config.get(f"{role}_token_id")
        for i in ids if isinstance(ids, list) else [ids]:
            if i in names:
                tokens.setdefault(names[i], name)
    return tokens, configs["config.json"].get("vocab_size") or float("inf")


def _say_difference(
    folder: Path,
    role: str,
    told: str | None,
    known: Mapping[str, int],
    configured: Mapping[str, str],
    chosen: str | None,
) -> None:
    place = known.get(told, "not in its vocabulary")
    theirs = " and ".join(f"{file} has {token!r} ({known[token]})" for token, file in configured.items())
    told = f"{told!r} ({place})" if told else "not set"
    _say(f"{folder}: the tokenizer's {role}_token is {told}, {theirs or 'no other is known'}; {chosen!r} is used")


@functools.cache
def _say(text: str) -> None:
    """Logs a warning once a process: the model and each dataset load the tokenizer."""
    print_log(text, "current", logging.WARNING)


def _check_text(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raises a ValueError where words are spelt although they are tokens, or where the spaces between them are lost."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def back(text: str) -> str:
        return tokenizer.decode(ids(text)).strip().casefold()

    words, known = ("the", "red", "circle", "is", "a", "of", "1"), tokenizer.get_vocab()
    for word in words[:3]:
        token = next((token for token in (word, f"▁{word}", f"Ġ{word}") if token in known), None)
        if token and min(len(ids(word)), len(ids(f" {word}"))) >= len(word):
            raise ValueError(
                f"{folder}: the tokenizer's merges are missing: it spells {word!r}, but has a token {token!r}"
            )
    words = [word for word in words if back(word) == word]
    text = " ".join(words)
    if back(text).split() != words:
        raise ValueError(f"{folder}: the tokenizer loses spaces between words: {text!r} comes back as {back(text)!r}")
