"""Layout of the page: its Gradio components, from top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gradio as gr

from . import rendering
from .generation_settings import SLIDERS

STATIC = dict(js_on_load=None, apply_default_css=False)
WITH_BUTTONS = dict(js_on_load=(rendering.ASSETS / "page.js").read_text(encoding="utf-8"), apply_default_css=False)
IMMEDIATE = dict(queue=False, show_progress="hidden", api_visibility="private")  # events that do not wait in the queue


@dataclass(frozen=True)
class Components:
    """The components that take part in events.

    Attributes:
        turns: the answered turns.
        pending: the question that is being answered, and the answer so far.
        notice: a message.
        box: the text box for questions.
        stats: tokens and times of the last answer.
        new, copy, save_page, save_json: buttons.
        file: content of the file that the last two buttons save.
        settings: the controls, in the order in which `read_settings` takes their values.
        prompt: the prompt of the last answer.
    """

    turns: gr.HTML
    pending: gr.HTML
    notice: gr.HTML
    box: gr.MultimodalTextbox
    stats: gr.HTML
    new: gr.Button
    copy: gr.Button
    save_page: gr.Button
    save_json: gr.Button
    file: gr.JSON
    settings: list[gr.components.Component]
    prompt: gr.Textbox


def add_components(
    title: str,
    examples: Sequence[rendering.Example],
    slider_values: Sequence[float],
    starts: Mapping[str, str],
    max_pasted: int,
) -> Components:
    """Adds the components to the surrounding gr.Blocks.

    Args:
        title: shown on top.
        examples: first questions to click on.
        slider_values: initial values of SLIDERS.
        starts: the names of the prompt templates, and the text that prompts begin with; the first is chosen initially.
        max_pasted: characters of a pasted text; Gradio turns a longer text into a file.
    """
    with gr.Column(elem_id="screen"):
        gr.HTML(rendering.title_html(title), elem_id="head", **STATIC)
        with gr.Column(elem_id="conversation"):
            turns = gr.HTML(rendering.turns_html((), examples=examples), elem_id="turns", **WITH_BUTTONS)
            pending = gr.HTML("", elem_id="pending", **STATIC)
        notice = gr.HTML("", elem_id="notice", **WITH_BUTTONS)
        box = gr.MultimodalTextbox(
            file_types=["image", ".avif"],  # Older tables of MIME types do not know AVIF.
            file_count="multiple",
            placeholder="Ask something. Add, paste or drop images.",
            label="Question",
            show_label=False,
            autofocus=True,
            max_lines=8,
            max_plain_text_length=max_pasted,
            elem_id="box",
        )
        stats = gr.HTML("", elem_id="stats", **STATIC)
        with gr.Row(elem_id="tools"):
            buttons = [gr.Button(name, size="sm") for name in ("New chat", "Copy", "Save page", "Save JSON")]
    file = gr.JSON(visible=False)
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row(elem_id="sliders"):
            sliders = [
                gr.Slider(slider.low, slider.high, value, step=slider.step, label=slider.label, info=slider.hint)
                for slider, value in zip(SLIDERS, slider_values, strict=True)
            ]
            seed = gr.Textbox("", label="Seed", info="of what is drawn by chance", placeholder="another each time")
        first = next(iter(starts))
        template = gr.Dropdown(list(starts), value=first, label="Prompt template")
        start = gr.Textbox(starts[first], lines=2, max_lines=8, label="System prompt: how every prompt begins")
        # The event `input` would also come when the list loses the focus, and replace a text that was typed since.
        template.select(lambda name: starts[name], template, start, **IMMEDIATE)
    with gr.Accordion("Prompt of the last answer, as the model got it", open=False, elem_id="prompt"):
        prompt = gr.Textbox(show_label=False, label="Prompt", interactive=False, lines=4, max_lines=24)
    settings = [*sliders, seed, template, start]
    return Components(turns, pending, notice, box, stats, *buttons, file, settings, prompt)
