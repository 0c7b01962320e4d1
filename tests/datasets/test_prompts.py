import json

import pytest

from mmgpt.cli.config import load_config
from mmgpt.datasets.conversation import IMAGE_CONTENT, place_images, text_content
from mmgpt.datasets.prompts import EOS, SHORT, TEMPLATES, Segment, find_template, format_turns
from mmgpt.datasets.segments import prompt_text
from mmgpt.registry import DATASETS, PROMPTS

START = TEMPLATES["instruction"]["start"]


def test_one_turn_with_image_and_context():
    turn = {"question": "What is it?", "context": "A hint.", "answer": "a bus"}
    segments = format_turns(TEMPLATES["instruction"], place_images([turn], 1))
    assert segments == [
        Segment(START + "### Image:\n"),
        Segment("<image>", special=True),
        Segment("\n\n### Instruction:\nWhat is it?\n\n### Input:\nA hint.\n\n### Response:\n"),
        Segment("a bus", supervised=True),
        Segment(EOS, supervised=True, special=True),
    ]


def test_further_turns_follow_in_the_same_sequence():
    turns = [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]
    text = prompt_text(format_turns(SHORT, turns))
    assert text == "### Instruction:\na\n\n### Response:\nb<eos>\n\n### Instruction:\nc\n\n### Response:\nd<eos>"


def test_open_prompt_is_the_beginning_of_the_full_one():
    turns = [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]
    full, opened = format_turns(SHORT, turns), format_turns(SHORT, turns, open_last=True)
    assert full[: len(opened)] == opened
    assert opened[-1].text.endswith("### Response:\n")
    assert format_turns(SHORT, [turns[0], {"question": "c"}]) == opened


def test_empty_answer_has_no_labels():
    segments = format_turns(SHORT, [{"question": "a", "answer": ""}, {"question": "c", "answer": "d"}])
    assert [s.text for s in segments if s.supervised] == ["d", EOS]
    assert not any(s.supervised for s in format_turns(SHORT, [{"question": "a", "answer": ""}]))


def test_leading_images_have_sections_inner_ones_stay_inline():
    question = [IMAGE_CONTENT, IMAGE_CONTENT, text_content("is it "), IMAGE_CONTENT, text_content("?")]
    text = prompt_text(format_turns(SHORT, [{"question": question}]))
    section = "### Image:\n<image>\n\n"
    assert text == section * 2 + "### Instruction:\nis it <image>?\n\n### Response:\n"


def test_braces_and_marks_of_users_are_text():
    turn = {"question": "{context} <image> {question}", "context": "{question} <eos>", "answer": "<image>"}
    segments = format_turns(SHORT, [turn])
    assert [s.text for s in segments if s.special] == [EOS]
    assert "### Instruction:\n{context} <image> {question}\n" in segments[0].text
    assert "### Input:\n{question} <eos>\n" in segments[0].text


def test_plain_is_an_image_and_its_caption():
    turns = place_images([{"question": "", "answer": "a bus"}], 1)
    assert prompt_text(format_turns(TEMPLATES["plain"], turns)) == "<image>a bus<eos>"
    assert prompt_text(format_turns(TEMPLATES["plain"], [{"question": "", "answer": "a bus"}])) == "a bus<eos>"


def test_find_template():
    assert find_template("short") == SHORT
    own = {**SHORT, "response": "Answer: "}
    assert find_template(own) == own
    with pytest.raises(ValueError, match="'shrot': choose among instruction, short, plain"):
        find_template("shrot")
    with pytest.raises(ValueError, match="keys start, image"):
        find_template({"start": ""})
    with pytest.raises(ValueError, match="'question' must hold {question}"):
        find_template({**SHORT, "question": "ask:"})
    with pytest.raises(ValueError, match="'end' is one of <eos>, <|endofchunk|>, got '</s>'".replace("|", r"\|")):
        find_template({**SHORT, "end": "</s>"})
    assert find_template({key: text for key, text in SHORT.items() if key != "end"}) == SHORT


def test_wording_of_openflamingo():
    caption = format_turns(
        TEMPLATES["openflamingo_caption"], [{"question": [{"type": "image"}], "answer": "A cat."}] * 2
    )
    assert prompt_text(caption) == "<image>Output:A cat.<|endofchunk|>" * 2
    turn = {"question": [{"type": "image"}, {"type": "text", "text": "What?"}], "answer": "cat"}
    with_context = format_turns(TEMPLATES["openflamingo_vqa"], [turn | {"context": "It purrs."}], open_last=True)
    assert prompt_text(with_context) == "<image>Question:What? It purrs. Short answer:"
    question = format_turns(TEMPLATES["openflamingo_vqa"], [turn, turn], open_last=True)
    assert prompt_text(question) == (
        "<image>Question:What? Short answer:cat<|endofchunk|><image>Question:What? Short answer:"
    )


OUTSIDE = """
from mmgpt.registry import PROMPTS


@PROMPTS.register_module(name="tutor")
def tutor():
    return {
        "start": "You teach.\\n",
        "image": "<image>",
        "question": "Q: {question}\\n",
        "context": "({context})\\n",
        "response": "A: ",
        "next": "\\n",
    }
"""


def test_a_config_names_a_template_of_a_module_outside_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "templates_outside.py").write_text(OUTSIDE)
    (tmp_path / "data.jsonl").write_text(json.dumps({"turns": [{"question": "Why?", "answer": "So."}]}))
    (tmp_path / "config.py").write_text(
        "custom_imports = dict(imports=['templates_outside'])\n"
        f"dataset = dict(type='InstructionDataset', parser='conversation', ann_file={str(tmp_path / 'data.jsonl')!r},\n"
        "               pipeline=[dict(type='FormatPrompt', template='tutor')])\n"
    )
    try:
        sample = DATASETS.build(load_config(str(tmp_path / "config.py")).dataset)[0]
    finally:
        PROMPTS.module_dict.pop("tutor", None)
    assert prompt_text(sample["segments"]) == "You teach.\nQ: Why?\nA: So.<eos>"
    assert sample["prompt"] == "You teach.\nQ: Why?\nA: "


def test_a_registered_template_is_checked(monkeypatch):
    monkeypatch.setitem(PROMPTS.module_dict, "empty", dict)
    with pytest.raises(ValueError, match="a prompt template has the keys start, image"):
        find_template("empty")
