"""A prompt template as a Jinja chat template, for transformers."""

import json
from collections.abc import Mapping

from mmgpt.datasets.prompts import EOS, PLACEHOLDERS
from mmgpt.datasets.segments import IMAGE

# System messages stand before the first question, after its leading images, as in mmgpt's server. The head of an answer
# follows each question, also without add_generation_prompt.
JINJA = """\
{%%- set chat = namespace(system="", turns=0, answered=true) %%}
{{- %(begin)s }}
{%%- for message in messages %%}
    {%%- set content = message.content %%}
    {%%- set contents = [{"type": "text", "text": content}] if content is string else content %%}
    {%%- if message.role == "user" and chat.answered %%}
        {{- %(next)s if chat.turns else %(start)s }}
        {%%- set question = namespace(text=false) %%}
        {%%- for content in contents %%}
            {%%- if content.type == "image" %%}
                {{- %(mark)s if question.text else %(image)s }}
            {%%- elif content.text %%}
                {{- "" if question.text else %(before)s + chat.system }}
                {%%- set question.text = true %%}
                {{- content.text }}
            {%%- endif %%}
        {%%- endfor %%}
        {{- "" if question.text else %(before)s + chat.system }}
        {{- %(after)s }}
        {%%- set chat.system = "" %%}
        {%%- set chat.turns = chat.turns + 1 %%}
        {%%- set chat.answered = false %%}
    {%%- elif message.role == "assistant" and not chat.answered %%}
        {%%- set answer = namespace(text="") %%}
        {%%- for content in contents %%}{%% set answer.text = answer.text + content.text %%}{%% endfor %%}
        {{- answer.text | trim }}{{ %(end)s }}
        {%%- set chat.answered = true %%}
    {%%- elif message.role in ["system", "developer"] and not chat.turns %%}
        {%%- for content in contents %%}{%% set chat.system = chat.system + content.text %%}{%% endfor %%}
        {%%- set chat.system = chat.system + "\\n\\n" %%}
    {%%- else %%}
        {{- raise_exception("the roles are system, then user and assistant in turn: " + message.role) }}
    {%%- endif %%}
{%%- endfor %%}
"""


def jinja_template(template: Mapping[str, str], bos: str | None) -> str:
    """The Jinja chat template that writes what `format_turns` does.

    Args:
        template: of `find_template`.
        bos: the token in front of each text, if there is one.
    """
    before, _, after = template["question"].partition(PLACEHOLDERS["question"])
    texts = {
        "begin": bos or "",
        "start": template["start"],
        "next": template["next"],
        "mark": IMAGE,
        "image": template["image"],
        "before": before,
        "after": after + template["response"],
        "end": template["end"],
    }
    values = {name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}
    return JINJA % {**values, "end": "eos_token" if template["end"] == EOS else values["end"]}
