"""Generation settings: the tokens that end an answer, transformers' arguments, and the settings in force."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from math import inf
from pathlib import Path

from mmengine.logging import print_log
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase

from mmgpt.compat.beams import PublishedBeams

from .generation_files import CONFIG, GENERATION, as_ids, as_stated, read_settings
from .tokenizer import ADDED_TOKENS, IMAGE_TOKEN, PAD_TOKEN
from .transformers_names import CACHE

BEAM_SCORES = ("answer", "text")
DEFAULT_LENGTH = 20  # tokens, transformers' own
# Settings that act although nobody sets them: in any case, in sampling, in beam search.
ALWAYS = ("do_sample", "num_beams")
DRAWING = ("temperature", "top_k", "top_p")
BEAMS = ("length_penalty", "early_stopping")


def answer_ends(tokenizer: PreTrainedTokenizerBase, language: Mapping) -> list[int]:
    """Ids of the tokens that end an answer: the tokenizer's end of sequence, which training teaches, and the base's.

    The base's are those of generation_config.json, or of config.json where that names none. A warning says where
    they leave the tokenizer's out, or name an id that no token of the base has: it can end nothing.

    Args:
        tokenizer: of `load_tokenizer`.
        language: arguments of `load_language_model`.

    Raises:
        ValueError: a file names an end that is not an id.
    """
    config = language.get("config")
    files = [Path(language["path"]) / name for name in (GENERATION, CONFIG)]
    settings = {"language.config": config} if config else {str(file): read_settings(file) for file in files}
    *_, described = settings.values()
    known = _base_tokens(tokenizer, (described.get("text_config") or described).get("vocab_size") or 0)
    stated = {
        source: _token_ids(each.get("eos_token_id"), known, source, strict=False) for source, each in settings.items()
    }
    taught = tokenizer.eos_token_id
    ends = list(dict.fromkeys([taught, *next(filter(None, stated.values()), ())]))
    others = {source: _named(tokenizer, ids) for source, ids in stated.items() if ids and taught not in ids}
    if others:
        told = " and ".join(f"{source} with {names}" for source, names in others.items())
        print_log(
            f"the tokenizer ends texts with {_named(tokenizer, [taught])}, which training teaches, but {told}: "
            f"answers end with {_named(tokenizer, ends)}",
            "current",
            logging.WARNING,
        )
    return ends


def use_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> None:
    """Let a language model's configs, with which it is saved, name the special tokens that it is used with."""
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        config.eos_token_id = as_stated(ends)


def generation_arguments(tokenizer: PreTrainedTokenizerBase, given: Mapping, ends: Sequence[int] = ()) -> dict:
    """Arguments of transformers' generate: greedy, and without `<image>` and padding, unless `given` says otherwise.

    A token that ends the answer is not suppressed, also where it is the padding.

    Args:
        tokenizer: of the model.
        given: transformers' own arguments, and two of ours. `beam_scores="text"` scores beams as the published code did
            (see `beams`), instead of "answer", transformers' own way. `end_token` names the only token that ends an
            answer, as `eos_token_id` does by its id; None: `ends`.
        ends: the model's, of `answer_ends`; by default the tokenizer's end of sequence.

    Raises:
        ValueError: unknown `beam_scores`, `end_token` or `eos_token_id`, or both of the latter; names the choices.
    """
    given, ends = dict(given), list(ends) or [tokenizer.eos_token_id]
    scores, end = given.pop("beam_scores", "answer"), given.pop("end_token", None)
    if scores not in BEAM_SCORES:
        raise ValueError(f"beam_scores={scores!r}: choose one of {', '.join(BEAM_SCORES)}")
    own = ends
    if end is not None:
        own = [_end_token_id(tokenizer, end)]
        if "eos_token_id" in given:
            raise ValueError(f"end_token={end!r} and eos_token_id={given['eos_token_id']!r}: give one of them")
    elif "eos_token_id" in given:
        own = _token_ids(given.pop("eos_token_id"), _base_tokens(tokenizer), "generation")
    unwanted = {tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), tokenizer.pad_token_id} - set(own)
    arguments = {"do_sample": False, "pad_token_id": tokenizer.pad_token_id, "suppress_tokens": sorted(unwanted)}
    if own != ends:
        arguments["eos_token_id"] = as_stated(own)
    if scores == "text" and (given.get("num_beams") or 1) > 1:
        arguments["custom_generate"] = PublishedBeams(tuple(own), CACHE)
    return {**arguments, **given}


def generation_config(model: GenerationMixin, arguments: Mapping) -> GenerationConfig:
    """transformers' config of generate with these arguments, and the model's own settings for all others.

    Raises:
        ValueError: an argument that generate does not know, or a value it refuses.
    """
    settings = {name: value for name, value in arguments.items() if name != "custom_generate"}
    # The first step of generate; transformers has no public name for it.
    config, unknown = model._prepare_generation_config(None, **settings)
    if unknown:
        raise ValueError(f"unknown generation arguments: {', '.join(unknown)}")
    return config


def settings_in_force(model: GenerationMixin, tokenizer: PreTrainedTokenizerBase, given: Mapping) -> dict:
    """All that decides how a model's answers are generated, as plain data under transformers' names.

    Besides these: `end_token` where it is given, `beam_scores` where there are beams, and `tokens`, the texts of ids.

    Args:
        model: a GatedCausalLM.
        tokenizer: of the model.
        given: as for `generation_arguments`.

    Raises:
        ValueError: as `generation_arguments` says, or an argument is unknown to transformers.
    """
    settings = generation_config(model, generation_arguments(tokenizer, given, model.ends)).to_dict()
    neutral, beams = generation_config(model, {}).to_dict(), (settings["num_beams"] or 1) > 1
    acting = (*ALWAYS, *(DRAWING if settings["do_sample"] else ()), *(BEAMS if beams else ()))
    told = {name: value for name, value in settings.items() if name in acting or value != neutral.get(name)}
    if "max_length" not in told:
        told.setdefault("max_new_tokens", DEFAULT_LENGTH)
    told["eos_token_id"] = as_ids(settings["eos_token_id"])
    told["suppress_tokens"] = as_ids(settings["suppress_tokens"])
    if given.get("end_token") is not None:
        told["end_token"] = given["end_token"]
    if beams:
        told["beam_scores"] = given.get("beam_scores", "answer")
    told["tokens"] = {i: tokenizer.convert_ids_to_tokens(i) for i in told["eos_token_id"] + told["suppress_tokens"]}
    return json.loads(json.dumps(told, default=str))


def _base_tokens(tokenizer: PreTrainedTokenizerBase, rows: float = inf) -> set[int]:
    """Ids that can end a text, of a base with so many rows in its tables: tokens that Flamingo adds to it cannot."""
    added = (*ADDED_TOKENS, PAD_TOKEN)
    vocabulary = tokenizer.get_vocab().items()
    return {i for token, i in vocabulary if token != IMAGE_TOKEN and (i < rows or token not in added)}


def _end_token_id(tokenizer: PreTrainedTokenizerBase, end: str) -> int:
    choices = [token for token in tokenizer.all_special_tokens if token != IMAGE_TOKEN]
    if end not in choices:
        raise ValueError(f"end_token={end!r}: choose one of {', '.join(choices)}")
    return tokenizer.convert_tokens_to_ids(end)


def _token_ids(value: object, known: Collection[int], source: str, strict: bool = True) -> list[int]:
    """The ids that some source names as `eos_token_id`, all of them known.

    Unknown numbers are an error, or else left out with a warning: the files of small copies of a model have those of
    the large one. Anything but a number is an error (ValueError).
    """
    ids = as_ids(value)
    unknown = [i for i in ids if isinstance(i, bool) or not isinstance(i, int) or i not in known]
    if unknown and (strict or not all(type(i) is int for i in unknown)):
        choices = f"ids of tokens, which go from 0 to {max(known)}, {IMAGE_TOKEN} left out"
        raise ValueError(f"{source}: eos_token_id={value!r}: choose among the {choices}")
    if unknown:
        text = f"{source}: eos_token_id={value!r}: no token of the base has the id {', '.join(map(str, unknown))}"
        print_log(f"{text}; it ends no answer", "current", logging.WARNING)
    return [i for i in ids if i not in unknown]


def _named(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return " or ".join(f"{tokenizer.convert_ids_to_tokens(i)!r} (id {i})" for i in ids)
