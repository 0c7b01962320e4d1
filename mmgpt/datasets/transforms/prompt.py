"""Formatting of conversations by a prompt template."""

from collections.abc import Mapping, Sequence
from functools import partial

from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.conversation import place_images, question_text
from mmgpt.datasets.prompts import answer_segments, find_template, format_turns
from mmgpt.datasets.segments import IMAGE, Segment, prompt_text
from mmgpt.models.special_tokens import special_tokens
from mmgpt.models.tokenizer import shared_tokenizer
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation


@TRANSFORMS.register_module()
class FormatPrompt:
    """Formats the turns of a sample by a prompt template.

    Adds `segments` (see `segments.Segment`), `prompt` (all text before the last answer), `question` (its text),
    `answer`, `answers` and `choices` of the last turn, `open` (the value of `open_last`), and `with_answer`, a function
    from another last answer to the segments in which it alone has labels. Where turns are separate (SeparateTurns),
    it adds `turn_segments`, the segments of each turn alone.

    Args:
        template: name in PROMPTS, or the template itself (see `prompts.find_template`).
        open_last: leave out the last answer, for evaluation and chat.
        tokenizer: the language model's, or the folder that it is loaded from; needed for "chat", and for special tokens
            in the template.
        system: system text of samples without `system`. It has its own role in "chat"; other templates have it before
            the first question.

    Raises:
        ValueError: see `find_template`; the system text is not a string, or the chat template has no place for it.
        SampleError: the sample has another number of images than image contents, the chat template refuses it, or its
            turns are separate and the last answer is left out.
    """

    def __init__(
        self,
        template: str | Mapping[str, str] | ChatTemplate,
        open_last: bool = False,
        tokenizer=None,
        system: str = "",
    ):
        if not isinstance(system, str):
            raise ValueError(f"the system text (system_prompt) has to be a text, got {system!r:.80}")
        self.tokenizer = shared_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.template, self.open_last, self.system = find_template(template, self.tokenizer), open_last, system
        self.special = frozenset(special_tokens(self.tokenizer) if self.tokenizer else ()) - {IMAGE}
        try:
            self._format([{"question": "a"}], True, system)
        except ValueError as error:
            raise ValueError(f"with system_prompt={system!r:.80}: {error}" if system else str(error)) from error

    def with_template(
        self, template: str | Mapping[str, str] | ChatTemplate, system: str, open_last: bool
    ) -> "FormatPrompt":
        """The same step with another template."""
        return FormatPrompt(template, open_last, self.tokenizer, system)

    def __call__(self, results: dict) -> dict:
        system = results.get("system") or self.system
        try:
            turns = place_images(results["turns"], len(results["images"]))
            prompt = self._format(turns, True, system)
            results["segments"] = prompt if self.open_last else self._format(turns, False, system)
            if results.get("separate_turns"):
                if self.open_last:
                    raise ValueError("separate turns (SeparateTurns) are for training: PickTurn chooses one of them")
                images = len(results["images"])
                alone = [place_images([turn], images) for turn in results["turns"]]
                results["turn_segments"] = [self._format(turn, False, system) for turn in alone]
        except ValueError as error:
            raise SampleError(str(error), SampleLocation.of(results)) from error
        last = turns[-1]
        results["prompt"], results["open"] = prompt_text(prompt), self.open_last
        results["with_answer"] = partial(self._with_answer, turns, system, prompt)
        results["question"] = question_text(last["question"])
        results["answer"] = last.get("answer", "")
        results["answers"], results["choices"] = list(last.get("answers", [])), list(last.get("choices", []))
        return results

    def _format(self, turns: Sequence[dict], open_last: bool, system: str) -> list[Segment]:
        if isinstance(self.template, ChatTemplate):
            return self.template.format_turns(turns, open_last, system)
        return format_turns(self.template, turns, open_last, system, self.special)

    def _with_answer(self, turns: Sequence[dict], system: str, prompt: Sequence[Segment], answer: str) -> list[Segment]:
        if isinstance(self.template, ChatTemplate):
            turns = [*turns[:-1], dict(turns[-1], answer=answer)]
            return self.template.format_turns(turns, system=system, last_only=True)
        prompt = [segment._replace(supervised=False) for segment in prompt]
        return [*prompt, *answer_segments(self.template, answer)]
