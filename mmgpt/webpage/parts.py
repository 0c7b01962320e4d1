"""What stands on the page, from top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gradio as gr

from . import view
from .settings import SETTINGS

PLAIN = dict(js_on_load=None, apply_default_css=False)
ACTIVE = dict(js_on_load=(view.FOLDER / "page.js").read_text(encoding="utf-8"), apply_default_css=False)  # with buttons
QUIET = dict(queue=False, show_progress="hidden", api_visibility="private")  # events that never wait


@dataclass(frozen=True)
class Parts:
    """The parts of a page that take part in events.

    `talk` is what was said, `now` the question that is being answered, `notice` a message, `box` where questions are
    typed, `figures` what the last answer took, `settings` what `read_settings` reads in its order, `prompt` what the
    model got; `new`, `copy`, `as_page`, `as_data` are buttons, `file` holds what the last two make.
    """

    talk: gr.HTML
    now: gr.HTML
    notice: gr.HTML
    box: gr.MultimodalTextbox
    figures: gr.HTML
    new: gr.Button
    copy: gr.Button
    as_page: gr.Button
    as_data: gr.Button
    file: gr.JSON
    settings: list[gr.components.Component]
    prompt: gr.Textbox


def place(
    title: str, examples: Sequence[view.Example], numbers: Sequence[float], templates: Mapping[str, dict], longest: int
) -> Parts:
    """Puts the parts into the surrounding gr.Blocks.

    Args:
        title: shown on top.
        examples: to begin with.
        numbers: where SETTINGS stand at first.
        templates: prompt templates by name; the first is chosen at first.
        longest: characters of a pasted text at most; a longer one would become a file.
    """
    with gr.Column(elem_id="screen"):
        gr.HTML(view.head(title), elem_id="head", **PLAIN)
        with gr.Column(elem_id="conversation"):
            talk = gr.HTML(view.talk((), examples=examples), elem_id="talk", **ACTIVE)
            now = gr.HTML("", elem_id="now", **PLAIN)
        notice = gr.HTML("", elem_id="notice", **ACTIVE)
        box = gr.MultimodalTextbox(
            file_types=["image", ".avif"],  # older tables of MIME types do not know AVIF
            file_count="multiple",
            placeholder="Ask something. Add, paste or drop pictures.",
            label="Question",
            show_label=False,
            autofocus=True,
            max_lines=8,
            max_plain_text_length=longest,
            elem_id="box",
        )
        figures = gr.HTML("", elem_id="figures", **PLAIN)
        with gr.Row(elem_id="tools"):
            buttons = [gr.Button(name, size="sm") for name in ("New chat", "Copy", "Save page", "Save JSON")]
    file = gr.JSON(visible=False)
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        settings = [*_numbers(numbers), *_wording(templates)]
    with gr.Accordion("Prompt of the last answer, as the model got it", open=False, elem_id="prompt"):
        prompt = gr.Textbox(show_label=False, label="Prompt", interactive=False, lines=4, max_lines=24)
    return Parts(talk, now, notice, box, figures, *buttons, file, settings, prompt)


def _numbers(values: Sequence[float]) -> list[gr.components.Component]:
    with gr.Row(elem_id="numbers"):
        sliders = [
            gr.Slider(each.low, each.high, value, step=each.step, label=each.label, info=each.hint)
            for each, value in zip(SETTINGS, values, strict=True)
        ]
        seed = gr.Textbox("", label="Seed", info="of what is drawn by chance", placeholder="another each time")
    return [*sliders, seed]


def _wording(templates: Mapping[str, dict]) -> list[gr.components.Component]:
    first = next(iter(templates))
    template = gr.Dropdown(list(templates), value=first, label="Prompt template")
    start = gr.Textbox(templates[first]["start"], lines=2, max_lines=8, label="System prompt: how every prompt begins")
    template.input(lambda name: templates[name]["start"], template, start, **QUIET)
    return [template, start]
