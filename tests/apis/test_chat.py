"""Chat: tokenized as in training, several conversations, stopping, and errors that leave the conversation alone."""

import json
from contextlib import closing
from copy import deepcopy

import pytest
import torch
from PIL import Image

from mmgpt.apis import Chat, Conversation, build_model, read_image
from mmgpt.cli import load_config
from mmgpt.datasets import InstructionDataset, prompts
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.transforms import PromptTooLong
from tests.helpers.chat_pipeline import pipeline
from tests.helpers.transformers_generate import reference_generate


@pytest.fixture(scope="module")
def chat(chat_config, chat_checkpoint):
    return Chat.from_config(chat_config, chat_checkpoint, device="cpu")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def dialogue(tmp_path, picture):
    """A training dialogue of three turns in the LLaVA layout, through the training pipeline, and its turns."""
    turns = [("<image>\nwhat shape is it?", "a circle"), ("what colour?", "red 😀"), ("is it {blue} </s>?", "no")]
    values = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    (tmp_path / "x.json").write_text(json.dumps([{"id": "1", "image": picture.name, "conversations": values}]))
    return [(question.removeprefix("<image>\n"), answer) for question, answer in turns]


@pytest.mark.parametrize("template", ["instruction", "short"])
def test_a_conversation_is_tokenized_as_a_training_dialogue(chat, tmp_path, picture, tiny_llama, template):
    turns = dialogue(tmp_path, picture)
    prepare, prompt, tokenize = pipeline(tiny_llama, 1000)
    prompt["template"] = template
    steps = [dict(type="LoadImages"), prepare, dict(prompt, open_last=False), tokenize, dict(type="PackInputs")]
    data = InstructionDataset(
        "llava", pipeline=steps, ann_file="x.json", data_root=str(tmp_path), data_prefix=dict(img="")
    )[0]
    other = Chat(chat.model, build_pipeline([prepare, prompt, tokenize]))
    for count in (1, 2, 3):
        asked = conversation_of(turns[:count], picture)
        inputs = other.prepare(asked)
        (length,) = inputs["input_ids"].shape[1:]
        assert torch.equal(inputs["input_ids"][0], data["input_ids"][:length])
        # What follows the open prompt in training is the answer, learned from its first token on.
        assert data["labels"][length - 1] == -100
        assert data["labels"][length] == data["input_ids"][length]
        assert torch.equal(inputs["pixels"][0], data["pixels"])
    answer = chat.model.tokenizer(turns[-1][1], add_special_tokens=False)["input_ids"]
    assert data["input_ids"][length:].tolist() == [*answer, chat.model.tokenizer.eos_token_id]


def conversation_of(turns, picture):
    parts = [[{"type": "text", "text": question}] for question, _ in turns]
    parts[0].insert(0, {"type": "image"})
    asked = [dict(question=question, answer=answer) for question, (_, answer) in zip(parts, turns, strict=True)]
    del asked[-1]["answer"]
    return Conversation(asked, [read_image(picture)])


def test_ask_builds_that_conversation(chat, picture):
    conversation = chat.start()
    first = chat.ask(conversation, "what colour is it?", [picture])
    second = chat.ask(conversation, "what shape is it?")
    expected = conversation_of([("what colour is it?", first), ("what shape is it?", second)], picture)
    assert [turn["question"] for turn in conversation.turns] == [turn["question"] for turn in expected.turns]
    assert [turn["answer"] for turn in conversation.turns] == [first, second]
    assert len(conversation.images) == 1


def test_the_pieces_are_the_models_own_answer(chat, picture):
    # A random model says bytes that are no characters, which a stream cannot take back: without them.
    generation = dict(max_new_tokens=8, bad_words_ids=[[i] for i in range(3, 259)])
    inputs = chat.prepare(conversation_of([("what colour?", "")], picture))
    ids = reference_generate(chat.model, **inputs, **generation)
    expected = chat.model.tokenizer.decode(ids[0], skip_special_tokens=True).lstrip()
    wordy = Chat(chat.model, chat.pipeline, generation)
    pieces = list(wordy.stream(wordy.start(), "what colour?", [Image.open(picture)]))
    assert "".join(pieces) == expected
    assert len(pieces) > 1


def test_a_batch_is_answered_as_one_by_one(chat, picture):
    blue = Image.new("RGB", (50, 50), "blue")
    many = [
        conversation_of([("what colour?", "red"), ("is it a circle or a square?", "")], picture),
        Conversation([{"question": "one or two?"}]),
        Conversation(
            [{"question": [{"type": "image"}, {"type": "text", "text": "the "}, {"type": "image"}]}], [blue] * 2
        ),
    ]
    before = deepcopy([conversation.turns for conversation in many])
    words = dict(bad_words_ids=[[i] for i in range(3, 259)])
    for generation in (dict(words, max_new_tokens=8), dict(words, max_new_tokens=5, num_beams=3)):
        single = [chat.answer_all([conversation], generation)[0] for conversation in many]
        assert chat.answer_all(many, generation) == single
        assert all(single)
        assert len(set(single)) == 3
    assert [conversation.turns for conversation in many] == before
    streamed = Chat(chat.model, chat.pipeline, dict(words, max_new_tokens=8))
    assert streamed.answer_all(many)[1] == streamed.ask(streamed.start(), "one or two?")


def test_the_image_reaches_the_model_and_text_alone_works(chat, picture):
    blue = Image.new("RGB", (32, 32), "blue")
    inputs = [chat.prepare(conversation_of([("what?", "")], image))["pixels"] for image in (picture, blue)]
    assert not torch.equal(*inputs)
    conversation = chat.start()
    assert chat.prepare(Conversation([{"question": "what?"}]))["pixels"] is None
    assert chat.ask(conversation, "what?")
    assert conversation.images == []


def test_conversations_do_not_touch_each_other(chat, picture):
    alone = chat.start()
    expected = [chat.ask(alone, "what colour?", [picture]), chat.ask(alone, "one or two?")]
    first, second = chat.start(), chat.start()
    mixed = [chat.ask(first, "what colour?", [picture])]
    chat.ask(second, "is the square blue?")
    mixed.append(chat.ask(first, "one or two?"))
    assert mixed == expected


def test_two_streams_at_once(chat, picture):
    expected = [chat.ask(chat.start(), question) for question in ("one", "two")]
    streams = [chat.stream(chat.start(), question) for question in ("one", "two")]
    said = ["", ""]
    running = [0, 1]
    while running:
        for index in list(running):
            piece = next(streams[index], None)
            if piece is None:
                running.remove(index)
            else:
                said[index] += piece
    assert [text.strip() for text in said] == expected


def test_closing_keeps_what_came(chat):
    conversation = chat.start()
    with closing(chat.stream(conversation, "what?")) as pieces:
        first = next(pieces)
    assert conversation.turns[0]["answer"] == first.strip()


def test_an_image_tag_that_is_typed_stays_text(chat):
    image = chat.model.tokenizer.convert_tokens_to_ids("<image>")
    ids = chat.prepare(Conversation([{"question": [{"type": "text", "text": "what is <image>?"}]}]))["input_ids"]
    assert not (ids == image).any()


def test_images_in_later_turns(chat, picture):
    conversation = chat.start()
    chat.ask(conversation, "one?")
    chat.ask(conversation, "two?", [picture, Image.new("L", (50, 50))])
    asked = Conversation([*conversation.turns, {"question": "three?"}], conversation.images)
    inputs = chat.prepare(asked)
    assert inputs["image_counts"].tolist() == [2]
    assert inputs["pixels"].shape == (1, 2, 3, 32, 32)


@pytest.mark.parametrize("text, images, error, message", [
    ("what?", ["nowhere.png"], FileNotFoundError, "^image '.*nowhere.png': no such file"),
    ("what?", ["broken.png"], ValueError, "^image .*: cannot be read"),
    ("what?", ["red.png", "cut.png"], ValueError, "^image .*: cannot be read"),
    ("  ", [], ValueError, "question is empty"),
    ("what? " * 500, [], PromptTooLong, "^a prompt of .* the limit is 255"),
])  # fmt: skip
def test_errors_leave_the_conversation_as_it_was(chat, picture, text, images, error, message):
    (picture.parent / "broken.png").write_text("no image")
    Image.effect_noise((200, 200), 50).save(picture.parent / "whole.png")
    (picture.parent / "cut.png").write_bytes((picture.parent / "whole.png").read_bytes()[:3000])
    conversation = chat.start()
    chat.ask(conversation, "one?")
    with pytest.raises(error, match=message):
        chat.ask(conversation, text, [picture.parent / image for image in images])
    assert len(conversation.turns) == 1
    assert conversation.images == []


def test_a_prompt_in_chat_may_be_longer_than_a_row_of_training(tiny_base):
    question = Conversation().with_question("the red circle " * 50)

    def asked(**options):
        cfg = deepcopy(tiny_base)
        cfg.chat_pipeline[-1].update(options)
        answer = Chat.from_config(cfg, device="cpu", generation=dict(max_new_tokens=2)).submit(question)
        answer.text()
        return answer.prompt_tokens

    length = asked()
    assert tiny_base.max_length < length
    assert asked(max_length=length) == length
    with pytest.raises(PromptTooLong, match=f"a prompt of {length} tokens, the limit is {length - 1}"):
        asked(max_length=length - 1)


def test_a_failing_model_leaves_the_conversation_as_it_was(chat, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    conversation = chat.start()
    monkeypatch.setattr(chat.flamingo.language, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        chat.ask(conversation, "one?")
    assert conversation == Conversation()


def test_generation_arguments_and_beams(chat_config, tiny_flamingo_config):
    options = {"model.module.generation": dict(max_new_tokens=9, num_beams=3)}
    longer = Chat.from_config(chat_config, options=options)
    shorter = Chat.from_config(chat_config, options=options, generation=dict(max_new_tokens=2))
    said = [len(list(chat.stream(chat.start(), "the red circle"))) for chat in (longer, shorter)]
    assert said[0] > said[1] > 0


def test_the_checkpoint_is_loaded_and_matters(chat_config, chat_checkpoint):
    chat = Chat.from_config(chat_config, chat_checkpoint, "cpu", merge=False)
    state = torch.load(chat_checkpoint, weights_only=True)["state_dict"]
    loaded = chat.model.state_dict()
    assert state
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert not chat.model.training
    before = Chat.from_config(chat_config)
    other = Chat(chat.model, chat.pipeline)  # what a chat keeps is of the weights that it saw
    with chat.model.disabled():
        untuned = other.ask(other.start(), "the red circle")
    assert untuned == before.ask(before.start(), "the red circle")


def test_what_is_missing_is_named(chat_config, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        Chat.from_config(chat_config, tmp_path / "gone.pth")
    with pytest.raises(FileNotFoundError, match="language_model"):
        Chat.from_config(chat_config, options=dict(language_model="nowhere"))
    with pytest.raises(ValueError, match="device 'moon' cannot be used"):
        Chat.from_config(chat_config, device="moon")
    cfg = load_config(chat_config)
    with pytest.raises(ValueError, match="already loaded"):
        Chat.from_config(cfg, options=dict(language_model="x"))
    cfg.pop("chat_pipeline")
    with pytest.raises(ValueError, match="needs `chat_pipeline`"):
        Chat.from_config(cfg)


def test_a_checkpoint_of_another_config(chat_config, chat_checkpoint):
    cfg = load_config(chat_config, {"model.lora.r": 3})
    with pytest.raises(ValueError, match="does not belong to the model of this config"):
        build_model(cfg, chat_checkpoint)


@pytest.mark.parametrize("beams", [1, 2])
def test_an_answer_ends_where_the_base_ends_texts(chat_config, base_saying, beams):
    """Which may be at an ordinary token: it is not part of the text, but one of the tokens that were generated."""
    word = 270
    base = base_saying(dict(eos_token_id=word, repetition_penalty=9.0), dict(eos_token_id=word))
    options = {"model.module.language.path": base}
    chat = Chat.from_config(chat_config, None, "cpu", options, dict(max_new_tokens=5, num_beams=beams))
    for end in (word, chat.model.tokenizer.eos_token_id):
        saying = dict(sequence_bias=[[[end], 1000.0]], num_beams=beams)
        answer = chat.submit(chat.start().with_question("what?"), saying)
        assert (answer.text(), answer.finish_reason, answer.completion_tokens) == ("", "stop", 1)
        assert chat.answer_all([chat.start().with_question("what?")], saying) == [""]
    saying = dict(sequence_bias=[[[word], 1000.0]], eos_token_id=2)
    answer = chat.submit(chat.start().with_question("what?"), saying)
    assert answer.text()
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 5)
    if beams == 1:
        [piece] = chat.submit(
            chat.start().with_question("what?"), dict(sequence_bias=[[[word], 1000.0]]), top_logprobs=0
        )
        assert piece.text == ""
        assert [token.id for token in piece.tokens] == [word]


def test_the_old_name_of_the_scheduler_argument_is_accepted_with_a_warning(chat):
    with pytest.warns(FutureWarning, match=r"Chat\(engine=...\) is called scheduler=... now"):
        other = Chat(chat.model, chat.pipeline, engine=dict(max_batch=3))
    assert other.scheduler.max_batch == 3


def test_settings_in_force_are_those_of_a_stream(chat):
    beams = Chat(chat.model, chat.pipeline, dict(max_new_tokens=7, num_beams=3))
    told = beams.settings_in_force()
    assert (told["num_beams"], told["max_new_tokens"], told["eos_token_id"]) == (1, 7, [2])


def test_an_answer_that_generation_does_not_end_is_told(chat, tiny_llama, monkeypatch):
    prepare, prompt, tokenize = pipeline(tiny_llama)
    chunk, told = "<|endofchunk|>", []
    monkeypatch.setattr(prompts, "print_log", lambda text, *_: told.append(text))
    for template, end_token in (
        ("short", None),
        ("openflamingo_vqa", chunk),
        ("openflamingo_vqa", None),
        ("short", chunk),
    ):
        steps = build_pipeline([prepare, {**prompt, "template": template}, tokenize])
        Chat(chat.model, steps, dict(max_new_tokens=2, end_token=end_token))
    assert told == [
        f"the prompt template ends answers with {end!r}, but generation stops at {stop!r}: set end_token={end!r} among "
        "the generation arguments"
        for end, stop in ((chunk, "</s>"), ("</s>", chunk))
    ]
