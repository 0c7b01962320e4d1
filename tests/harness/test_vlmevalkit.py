"""The adapter for VLMEvalKit against a stand-in with the interface of vlmeval/vlm/base.py, called as its inference."""

import pytest
import torch

from mmgpt.apis import Chat, Conversation
from tests.harness.conftest import SEED, WORDS_ONLY
from tests.helpers.transformers_generate import reference_generate


class BaseModel:
    """The parts of vlmeval.vlm.base.BaseModel that a model meets."""

    INTERLEAVE = False
    allowed_types = ["text", "image", "video"]

    def __init__(self):
        self.dump_image_func = None

    def set_dump_image(self, function):
        self.dump_image_func = function

    def use_custom_prompt(self, dataset):
        return False

    def generate(self, message, dataset=None):
        for item in message:
            assert item["type"] in self.allowed_types, f"Invalid input type: {item['type']}"
        return self.generate_inner(message, dataset)

    def chat(self, messages, dataset=None):
        assert hasattr(self, "chat_inner")
        for message in messages:
            if isinstance(message["content"], str):
                message["content"] = [dict(type="text", value=message["content"])]
        return self.chat_inner(messages, dataset=dataset)


@pytest.fixture
def model(stand_in, fresh_import, chat_config, chat_checkpoint):
    stand_in("vlmeval.vlm.base", BaseModel=BaseModel)
    adapter = fresh_import("mmgpt.harness.vlmevalkit")
    torch.manual_seed(SEED)
    return adapter.MMGPT(chat_config, chat_checkpoint, device="cpu", generation=WORDS_ONLY)


@pytest.fixture
def files(pictures, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return paths


def text(value):
    return dict(type="text", value=value)


def image(file):
    return dict(type="image", value=file)


def test_the_interface(model):
    assert isinstance(model, BaseModel)
    assert model.INTERLEAVE
    assert not model.use_custom_prompt("MME")
    model.set_dump_image(print)
    assert model.dump_image_func is print
    with pytest.raises(AssertionError, match="Invalid input type: video"):
        model.generate([dict(type="video", value="x.mp4")])


def test_single_turns_equal_the_chat(model, chat, files):
    asked = [[image(files[0]), text("what colour is it?")], [text("one or two?")]]
    answers = [model.generate(message=message, dataset="MME") for message in asked]
    assert answers == [chat.ask(chat.start(), "what colour is it?", files[:1]), chat.ask(chat.start(), "one or two?")]
    assert all(answers)
    assert answers[0] != answers[1]


def test_texts_and_images_keep_their_order(model, chat, files, pictures, submitted):
    message = [text("is "), image(files[1]), text(" blue or "), image(files[0]), text("?")]
    parts = [
        {"type": "text", "text": part["value"]} if part["type"] == "text" else {"type": "image"} for part in message
    ]
    expected = chat.prepare(Conversation([{"question": parts}], [pictures[1], pictures[0]]))
    calls = submitted(model.chat_model)
    assert model.generate(message)
    [[request]] = calls
    assert request.ids.equal(expected["input_ids"])
    assert request.pixels.equal(expected["pixels"][0])
    assert len(request.pixels) == 2
    assert request.sampler.max_new_tokens == 6


def test_several_turns_equal_the_chat(model, chat, files):
    conversation = chat.start()
    first = chat.ask(conversation, "what colour is it?", files[:1])
    second = chat.ask(conversation, "one or two?", files[1:2])
    messages = [dict(role="user", content=[image(files[0]), text("what colour is it?")])]
    assert model.chat(messages, dataset="MMDU") == first
    messages += [
        dict(role="assistant", content=first),
        dict(role="user", content=[image(files[1]), text("one or two?")]),
    ]
    assert model.chat(messages, dataset="MMDU") == second


def test_errors_name_the_image_or_the_role(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.png"):
        model.generate([image(str(tmp_path / "gone.png")), text("what?")])
    with pytest.raises(ValueError, match="unknown role 'system'; choose one of user, assistant"):
        model.chat([dict(role="system", content="be kind")])


def test_beams_of_the_config(model, chat):
    beams = Chat(chat.model, chat.pipeline, {**WORDS_ONLY, "num_beams": 3})
    model.chat_model.generation = beams.generation
    asked = Conversation([{"question": "what colour is the circle?"}])
    ids = reference_generate(chat.model, **chat.prepare(asked), **beams.generation)
    said = chat.model.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    assert model.generate([text("what colour is the circle?")]) == said
