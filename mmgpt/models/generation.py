"""What generation is told besides a user's own arguments."""

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from .beams import PublishedBeams
from .language import IMAGE_TOKEN

BEAM_SCORES = ("answer", "text")


def generation_arguments(tokenizer: PreTrainedTokenizerBase, given: Mapping) -> dict:
    """Arguments of transformers' generate: greedy, and without `<image>` and padding, unless `given` says otherwise.

    Args:
        tokenizer: of the model.
        given: transformers' own arguments, and two of ours. `beam_scores="text"` scores beams as the published code did
            (see `beams`), instead of "answer", transformers' own way. `end_token` names the token that ends an answer,
            instead of the end of sequence.

    Raises:
        ValueError: unknown `beam_scores`, or `end_token` is no special token; names the choices.
    """
    given = dict(given)
    scores, end = given.pop("beam_scores", "answer"), given.pop("end_token", tokenizer.eos_token)
    if scores not in BEAM_SCORES:
        raise ValueError(f"beam_scores={scores!r}: choose one of {', '.join(BEAM_SCORES)}")
    if end not in tokenizer.all_special_tokens:
        raise ValueError(f"end_token={end!r}: choose one of {', '.join(tokenizer.all_special_tokens)}")
    unwanted = {IMAGE_TOKEN, tokenizer.pad_token} - {tokenizer.eos_token}
    arguments = {
        "do_sample": False,
        "pad_token_id": tokenizer.pad_token_id,
        "suppress_tokens": sorted(tokenizer.convert_tokens_to_ids(list(unwanted))),
    }
    if end != tokenizer.eos_token:
        arguments["eos_token_id"] = tokenizer.convert_tokens_to_ids(end)
    if scores == "text" and given.get("num_beams", 1) > 1:
        arguments["custom_generate"] = PublishedBeams()
    return {**arguments, **given}
