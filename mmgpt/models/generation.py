"""Generation settings: the tokens that end an answer, transformers' arguments, and the settings in force."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from math import inf
from pathlib import Path

from mmengine.logging import print_log
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase

from mmgpt.utils.hub import local_folder

from .generation_files import CONFIG, GENERATION, as_ids, as_setting, read_model_config, read_settings
from .special_tokens import end_of_turn
from .tokenizer import ADDED_TOKENS, IMAGE_TOKEN, PAD_TOKEN

BEAM_SCORES = ("answer", "text")
DEFAULT_LENGTH = 20  # tokens, transformers' own
# Settings whose defaults have an effect: always, in sampling, in beam search.
ALWAYS = ("do_sample", "num_beams")
SAMPLING = ("temperature", "top_k", "top_p")
BEAMS = ("length_penalty", "early_stopping")


def answer_ends(tokenizer: PreTrainedTokenizerBase, language: Mapping) -> list[int]:
    """Ids of the tokens that end an answer.

    They are the tokenizer's end of sequence, used in training, the base's own ends, and the end of a turn in the
    tokenizer's chat template, if it has one. The base's ends are those of generation_config.json, or of config.json
    where that names none. A warning says where they leave the tokenizer's out, or name an id that no token of the base
    has: such an id ends no answer.

    Args:
        tokenizer: of `load_tokenizer`.
        language: arguments of `load_language_model`.

    Raises:
        ValueError: a file names an end that is not an id.
    """
    config = language.get("config")
    folder = Path(local_folder(language["path"], weights=False))
    files = {folder / GENERATION: read_settings(folder / GENERATION), folder / CONFIG: read_model_config(folder)}
    settings = {"language.config": config} if config else files
    *_, model_config = settings.values()
    vocabulary = _base_tokens(tokenizer, (model_config.get("text_config") or model_config).get("vocab_size") or 0)
    base_ends = {
        source: _token_ids(values.get("eos_token_id"), vocabulary, source, strict=False)
        for source, values in settings.items()
    }
    eos = tokenizer.eos_token_id
    ends = list(dict.fromkeys([eos, *next(filter(None, base_ends.values()), ())]))
    differing = {source: _token_names(tokenizer, ids) for source, ids in base_ends.items() if ids and eos not in ids}
    if differing:
        sources = " and ".join(f"{source} with {names}" for source, names in differing.items())
        print_log(
            f"the tokenizer ends sequences with {_token_names(tokenizer, [eos])}, the end that training uses, but "
            f"{sources}: answers end with {_token_names(tokenizer, ends)}",
            "current",
            logging.WARNING,
        )
    turn_end = tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer) or tokenizer.eos_token)
    return list(dict.fromkeys([*ends, turn_end]))


def use_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> None:
    """Writes the tokenizer's special tokens into a language model's configs, which are saved with the model."""
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        config.eos_token_id = as_setting(ends)


def generation_arguments(tokenizer: PreTrainedTokenizerBase, settings: Mapping, ends: Sequence[int] = ()) -> dict:
    """Arguments of transformers' generate and `beam_scores`; by default greedy, `<image>` and padding suppressed.

    A token that ends the answer is not suppressed, even if it is the padding.

    Args:
        tokenizer: of the model.
        settings: transformers' own arguments, and two of mmgpt's. `beam_scores="text"` scores beams as the published
            code did (see `inference.beam_search`), instead of "answer", transformers' own way. `end_token` names the
            only token that ends an answer, as `eos_token_id` does by its id; None: `ends`.
        ends: the model's, of `answer_ends`; by default the tokenizer's end of sequence.

    Raises:
        ValueError: unknown `beam_scores`, `end_token` or `eos_token_id`, or both of the latter; names the choices.
    """
    settings, model_ends = dict(settings), list(ends) or [tokenizer.eos_token_id]
    scores, end = settings.get("beam_scores", BEAM_SCORES[0]), settings.pop("end_token", None)
    if scores not in BEAM_SCORES:
        raise ValueError(f"beam_scores={scores!r}: choose one of {', '.join(BEAM_SCORES)}")
    ends = model_ends
    if end is not None:
        choices = [token for token in tokenizer.all_special_tokens if token != IMAGE_TOKEN]
        if end not in choices:
            raise ValueError(f"end_token={end!r}: choose one of {', '.join(choices)}")
        if "eos_token_id" in settings:
            raise ValueError(f"end_token={end!r} and eos_token_id={settings['eos_token_id']!r}: give one of them")
        ends = [tokenizer.convert_tokens_to_ids(end)]
    elif "eos_token_id" in settings:
        ends = _token_ids(settings.pop("eos_token_id"), _base_tokens(tokenizer), "generation")
    suppressed = {tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), tokenizer.pad_token_id} - set(ends)
    arguments = {"do_sample": False, "pad_token_id": tokenizer.pad_token_id, "suppress_tokens": sorted(suppressed)}
    if ends != model_ends:
        arguments["eos_token_id"] = as_setting(ends)
    return {**arguments, **settings}


def generation_config(model: GenerationMixin, arguments: Mapping) -> GenerationConfig:
    """transformers' config of generate with these arguments, and the model's own settings for all others.

    Raises:
        ValueError: an argument that generate does not know, or a value it refuses.
    """
    settings = {name: value for name, value in arguments.items() if name != "beam_scores"}
    # The first step of generate; transformers has no public name for it.
    config, unknown = model._prepare_generation_config(None, **settings)
    if unknown:
        raise ValueError(f"unknown generation arguments: {', '.join(unknown)}")
    return config


def settings_in_force(model: GenerationMixin, tokenizer: PreTrainedTokenizerBase, settings: Mapping) -> dict:
    """The effective generation settings of a model, as plain data under transformers' names.

    There are three further names: `end_token` where it is set, `beam_scores` in beam search, and `tokens`, the texts
    of ids.

    Args:
        model: a GatedCausalLM.
        tokenizer: of the model.
        settings: as for `generation_arguments`.

    Raises:
        ValueError: as `generation_arguments` says, or an argument is unknown to transformers.
    """
    values = generation_config(model, generation_arguments(tokenizer, settings, model.ends)).to_dict()
    defaults, beams = generation_config(model, {}).to_dict(), (values["num_beams"] or 1) > 1
    names = (*ALWAYS, *(SAMPLING if values["do_sample"] else ()), *(BEAMS if beams else ()))
    effective = {name: value for name, value in values.items() if name in names or value != defaults.get(name)}
    if "max_length" not in effective:
        effective.setdefault("max_new_tokens", DEFAULT_LENGTH)
    ends, suppressed = as_ids(values["eos_token_id"]), as_ids(values["suppress_tokens"])
    effective |= {"eos_token_id": ends, "suppress_tokens": suppressed}
    if settings.get("end_token") is not None:
        effective["end_token"] = settings["end_token"]
    if beams:
        effective["beam_scores"] = settings.get("beam_scores", "answer")
    effective["tokens"] = {i: tokenizer.convert_ids_to_tokens(i) for i in ends + suppressed}
    return json.loads(json.dumps(effective, default=str))


def _base_tokens(tokenizer: PreTrainedTokenizerBase, rows: float = inf) -> set[int]:
    """Ids of tokens that can end a sequence of a base whose embedding has so many rows; tokens added here cannot."""
    added = (*ADDED_TOKENS, PAD_TOKEN)
    vocabulary = tokenizer.get_vocab().items()
    return {i for token, i in vocabulary if token != IMAGE_TOKEN and (i < rows or token not in added)}


def _token_ids(value: object, vocabulary: Collection[int], source: str, strict: bool = True) -> list[int]:
    """The `eos_token_id` of a source as a list of ids of the vocabulary.

    A number that is not in the vocabulary is an error if `strict`, else left out with a warning: small copies of a
    model often keep the files of the large one. Anything but a number is an error (ValueError).
    """
    ids = as_ids(value)
    unknown = [i for i in ids if isinstance(i, bool) or not isinstance(i, int) or i not in vocabulary]
    if unknown and (strict or not all(type(i) is int for i in unknown)):
        choices = f"ids of tokens, which go from 0 to {max(vocabulary)}, {IMAGE_TOKEN} left out"
        raise ValueError(f"{source}: eos_token_id={value!r}: choose among the {choices}")
    if unknown:
        text = f"{source}: eos_token_id={value!r}: no token of the base has the id {', '.join(map(str, unknown))}"
        print_log(f"{text}; it ends no answer", "current", logging.WARNING)
    return [i for i in ids if i not in unknown]


def _token_names(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Tokens with their ids, for messages: "'</s>' (id 2)"."""
    return " or ".join(f"{tokenizer.convert_ids_to_tokens(i)!r} (id {i})" for i in ids)
