"""Prompts and pixels of the processor for transformers against the chat pipeline that it was made from."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

from mmgpt.apis import Conversation
from mmgpt.apis.conversation import read_conversation
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.hf.export import hf_processor
from mmgpt.hf.processing import MMGPTProcessor
from mmgpt.models.tokenizer import load_tokenizer
from tests.datasets.test_chat_template import NO_SYSTEM, some_conversation
from tests.helpers.chat_pipeline import pipeline
from tests.helpers.chat_templates import FAMILIES, chat_folder

CONVERSATIONS = 30
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (427, 640, 3), dtype=np.uint8))
SYSTEM = "Be brief, </s> <image>."


@pytest.fixture
def opened(tmp_path):
    """A function that gives the chat pipeline of a tokenizer's folder, with changed steps, and its processor."""

    def make(folder, prompt=None, tokens=None, images=None):
        prepare, form, tokenize = pipeline(folder, None)
        form = {**form, "tokenizer": folder, **(prompt or {})}
        steps = [images or prepare, form, {**tokenize, **(tokens or {})}]
        hf_processor(Config(dict(chat_pipeline=steps)), load_tokenizer(folder)).save_pretrained(tmp_path / "out")
        return build_pipeline(steps), MMGPTProcessor.from_pretrained(tmp_path / "out")

    return make


def as_messages(turns, system=""):
    """The messages of a conversation, and the conversation with all images."""
    messages, images = [dict(role="system", content=system)] if system else [], []
    for turn in turns:
        content = [dict(part, image=IMAGE) if part["type"] == "image" else part for part in turn["question"]]
        images += [IMAGE for part in content if part["type"] == "image"]
        messages.append(dict(role="user", content=content))
        if "answer" in turn:
            messages.append(dict(role="assistant", content=turn["answer"]))
    stripped = [{**turn, **({"answer": turn["answer"].strip()} if "answer" in turn else {})} for turn in turns]
    return messages, Conversation(stripped, images, system)


def ids_of(processor, messages, **more):
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, **more)["input_ids"][0]


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_by_the_chat_template_are_those_of_chat(opened, tmp_path, name):
    folder = chat_folder(name, tmp_path / name)
    system_prompt = "" if name in NO_SYSTEM else SYSTEM
    steps, processor = opened(folder, dict(template="chat", system=system_prompt))
    assert processor.chat_template == load_tokenizer(folder).chat_template
    rng, batch, expected = random.Random(0), [], []
    for _ in range(CONVERSATIONS):
        turns, system = some_conversation(rng, name, typed=True)
        turns[-1].pop("answer")
        messages, conversation = as_messages(turns, system)
        expected.append(read_conversation(conversation, steps)["input_ids"].tolist())
        batch.append(messages)
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
        assert inputs["input_ids"] == [expected[-1]]
        assert len(inputs.get("pixel_values", ())) == len(conversation.images)
    assert processor.apply_chat_template(batch, tokenize=True, return_dict=True)["input_ids"] == expected
    # A conversation that is answered, and the same up to the words of the answer.
    turns[-1]["answer"] = "a red one"
    messages, conversation = as_messages(turns, system)
    closed = steps[2].encode(steps[1].template.format_turns(conversation.turns, system=system or system_prompt))
    assert ids_of(processor, messages) == closed[0]
    end = processor.tokenizer.convert_tokens_to_ids(steps[1].template.end)
    last = max(i for i, token in enumerate(closed[0]) if token == end)
    assert ids_of(processor, messages, continue_final_message=True) == closed[0][:last]
    assert "\ufdd0" not in processor.apply_chat_template(messages) + processor.apply_chat_template([messages])[0]


@pytest.mark.parametrize("starts", [None, False, True])
@pytest.mark.parametrize("template", ["chat", "short"])
def test_the_start_of_sequence_is_that_of_the_pipeline(opened, tmp_path, template, starts):
    folder = chat_folder("zephyr", tmp_path / "zephyr")  # its template writes no start
    steps, processor = opened(folder, dict(template=template), dict(add_bos_token=starts))
    messages, conversation = as_messages([dict(question=[dict(type="text", text="What is red?")])])
    ids = ids_of(processor, messages)
    assert ids == read_conversation(conversation, steps)["input_ids"].tolist()
    start = processor.tokenizer.bos_token_id
    assert ids.count(start) == (template == "short" and bool(starts))
    # A text that no template has written.
    assert processor(text="red")["input_ids"][0][:1] == [start] or not starts
    # Keywords of the call beside those of the template.
    assert ids_of(processor, messages, padding=True) == ids


@pytest.mark.parametrize("system", ["", "You see.", "two\n"])
def test_system_texts_of_a_prompt_template(opened, tiny_llama, system):
    steps, processor = opened(tiny_llama, dict(template="short", system=SYSTEM))
    turns = [dict(question=[dict(type="image"), dict(type="text", text="What?")], answer="red")]
    messages, conversation = as_messages([*turns, dict(question=[dict(type="text", text="And?")])], system)
    expected = read_conversation(conversation, steps)["input_ids"].tolist()
    assert ids_of(processor, messages) == expected
    assert ids_of(processor, [dict(role="system", content=""), *messages]) == expected or system
    text = processor.apply_chat_template(messages)
    assert (SYSTEM in text) == (system == "")
    assert system in text


@pytest.mark.parametrize("template", ["chat", "short"])
def test_a_special_token_in_two_parts_of_a_message_is_text(opened, tmp_path, template):
    folder = chat_folder("zephyr", tmp_path / "zephyr")
    steps, processor = opened(folder, dict(template=template))
    parts = [dict(type="text", text=text) for text in ("Is <ima", "ge> or </", "s> a tag?", "\ufdd0", "\ufdd1<s>")]
    messages, conversation = as_messages([dict(question=parts)])
    ids = ids_of(processor, messages)
    assert ids == read_conversation(conversation, steps)["input_ids"].tolist()
    assert processor.image_token_id not in ids


def test_special_tokens_of_a_prompt_template(opened, tmp_path):
    folder = chat_folder("smollm2", tmp_path / "smollm2")
    template = dict(
        start="<|im_start|>user\n",
        image="<image>",
        question="{question}<|im_end|>\n",
        context="{context}",
        response="<|im_start|>assistant\n",
        end="<|im_end|>",
        next="\n<|im_start|>user\n",
    )
    steps, processor = opened(folder, dict(template=template))
    question = [dict(type="image"), dict(type="text", text="What <|im_end|> is this?")]
    messages, conversation = as_messages([dict(question=question, answer="red"), dict(question=question)])
    ids = ids_of(processor, messages)
    assert ids == read_conversation(conversation, steps)["input_ids"].tolist()
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 3
    with pytest.raises(ValueError, match="spells '<|im_start|>' in letters, .* give FormatPrompt tokenizer="):
        opened(folder, dict(template={**template, "end": "<eos>"}, tokenizer=None))


def test_what_the_chat_template_cannot_write_is_refused(opened, tmp_path):
    folder = chat_folder("zephyr", tmp_path / "zephyr")
    with pytest.raises(ValueError, match="tokenization='stripped' is for the prompt templates"):
        opened(folder, dict(template="chat"), dict(tokenization="stripped"))
    _, processor = opened(folder, dict(template="chat"))
    user, assistant = dict(role="user", content="a"), dict(role="assistant", content="a")
    for messages in ([assistant], [user, user], [user, dict(role="system", content="a")], [dict(user, role="tool")]):
        with pytest.raises(ValueError, match="the roles are system, then user and assistant in turn"):
            processor.apply_chat_template(messages)
    image = dict(assistant, content=[dict(type="image", image=IMAGE)])
    for messages, options, message in (
        ([dict(role="system", content="a")], {}, "there is no message of user"),
        ([user, image], {}, "only messages of user have images, not those of assistant"),
        ([user], dict(continue_final_message=True), "the last message is not an answer"),
        ([user], dict(chat_template="{{ messages }}"), "by its tokenizer's own template"),
        ([user], dict(tools=[dict(name="f")]), "tools: the prompts of this model have none"),
    ):
        with pytest.raises(ValueError, match=message):
            processor.apply_chat_template(messages, **options)


@cache
def libraries():
    """Settings of each library, among them those that transformers' CLIPImageProcessor cannot have."""
    timm = dict(library="timm", input_size=(3, 32, 48), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=0.8)
    timm |= dict(interpolation="bicubic", crop_mode="center")
    clip = dict(library="open_clip", size=32, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic")
    clip |= dict(resize_mode="longest", fill_color=7)
    sizes = dict(size=dict(height=32, width=32))
    return {
        "timm": timm,
        "timm, squashed": {**timm, "crop_mode": "squash", "interpolation": "bilinear"},
        "open_clip, with borders": clip,
        "siglip": {"library": "transformers", **SiglipImageProcessor(**sizes).to_dict()},
        "clip": {"library": "transformers", **CLIPImageProcessor(size=dict(shortest_edge=40), crop_size=32).to_dict()},
    }


@pytest.mark.parametrize("values", [{}, dict(mean=[0.1, 0.2, 0.3], std=[0.5] * 3, interpolation="bilinear")])
@pytest.mark.parametrize("name", libraries())
def test_pixels_by_a_librarys_own_preprocessing_are_those_of_the_pipeline(opened, tiny_llama, name, values):
    step = dict(type="PrepareImages", preprocessing=libraries()[name], **values)
    steps, processor = opened(tiny_llama, images=step)
    images = [IMAGE, IMAGE.crop((0, 0, 90, 300)), IMAGE.crop((0, 0, 33, 35))]
    expected = steps[0]({"pil": images})["pixels"]
    assert torch.equal(processor.image_processor(images, return_tensors="pt")["pixel_values"], expected)
    changed = {name: value for name, value in values.items()}
    other = build_pipeline([dict(step, **dict(changed, mean=[0.9] * 3))])[0]({"pil": images})["pixels"]
    assert not torch.equal(other, expected)
