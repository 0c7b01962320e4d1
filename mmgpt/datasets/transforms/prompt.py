"""Formatting of conversations by a prompt template."""

from collections.abc import Mapping

from mmgpt.datasets.conversation import place_images, prepend_system, question_text
from mmgpt.datasets.prompts import find_template, format_turns, prompt_text
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation


@TRANSFORMS.register_module()
class FormatPrompt:
    """Formats the turns of a sample by a prompt template.

    Adds `segments` (see `prompts.Segment`), `prompt` (all text before the last answer), `question` (its text),
    `answer`, `answers` and `choices` of the last turn, the `template`, and `open` (the value of `open_last`).

    Args:
        template: name in PROMPTS, or the template itself (see `prompts.find_template`).
        open_last: leave out the last answer, for evaluation and chat.

    Raises:
        SampleError: the sample has another number of images than image contents.
    """

    def __init__(self, template: str | Mapping[str, str], open_last: bool = False):
        self.template, self.open_last = find_template(template), open_last

    def __call__(self, results: dict) -> dict:
        try:
            turns = place_images(results["turns"], len(results["images"]))
        except ValueError as error:
            raise SampleError(str(error), SampleLocation.of(results)) from error
        turns = prepend_system(turns, results.get("system", ""))
        last = turns[-1]
        results["segments"] = format_turns(self.template, turns, self.open_last)
        results["prompt"] = prompt_text(format_turns(self.template, turns, open_last=True))
        results["open"], results["template"] = self.open_last, self.template
        results["question"] = question_text(last["question"])
        results["answer"] = last.get("answer", "")
        results["answers"], results["choices"] = list(last.get("answers", [])), list(last.get("choices", []))
        return results
