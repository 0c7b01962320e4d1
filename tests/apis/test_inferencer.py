"""MMGPTInferencer: inputs of every kind, the answers that Chat gives, files, and errors before the model runs."""

import json

import numpy as np
import pytest
import torch
from mmengine.infer import BaseInferencer
from PIL import Image

from mmgpt.apis import MMGPTInferencer
from mmgpt.webpage.rendering import data_uri

IMAGE = {"type": "image"}


@pytest.fixture(scope="module")
def inferencer(tiny_base):
    return MMGPTInferencer(tiny_base, device="cpu", show_progress=False)


@pytest.fixture
def images(tmp_path):
    """A folder of images, and a file that is not an image."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (40, 30), colour).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def predictions(result):
    return [row["prediction"] for row in result["predictions"]]


def test_the_answers_are_those_of_the_chat_one_by_one(inferencer, images):
    assert isinstance(inferencer, BaseInferencer)
    inputs = [(images / "0.png", "what colour?"), (images / "1.png", "what shape?"), (None, "is it red?")]
    result = inferencer(inputs, batch_size=2, generation=dict(max_new_tokens=6))
    chat = inferencer.chat
    answers = [
        chat.ask(chat.start(), question, [image] if image else [], generation=dict(max_new_tokens=6)).strip()
        for image, question in inputs
    ]
    assert predictions(result) == answers
    assert len(set(answers)) == 3
    assert result["visualization"] == []


def test_equal_inputs_of_different_forms_have_equal_answers(inferencer, images, tmp_path):
    red, blue = str(images / "0.png"), Image.open(images / "1.png")
    question = "what colour?"
    first, second = predictions(inferencer([(red, question), (blue, question)]))
    assert first != second
    assert predictions(inferencer([red, blue], question=question)) == [first, second]
    inputs = [dict(images=[red], question=question), dict(images=[blue])]
    assert predictions(inferencer(inputs, question=question)) == [first, second]
    assert predictions(inferencer(red, question=question)) == predictions(inferencer((red, question))) == [first]
    assert predictions(inferencer(dict(images=["0.png"], question=question), image_folder=images)) == [first]
    noise = Image.effect_noise((40, 30), 50)  # its data URI is longer than a path can be
    assert predictions(inferencer(data_uri(noise), question=question)) == predictions(inferencer((noise, question)))
    assert predictions(inferencer(images, question=question))[:2] == [first, second]
    lines = [dict(images=["0.png"], turns=[dict(question=question, answer="red")]), dict(images=["1.png"], turns=[])]
    lines[1]["turns"] = [dict(question=[IMAGE, dict(type="text", text=question)])]
    (images / "inputs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert predictions(inferencer(images / "inputs.jsonl")) == [first, second]
    moved = (images / "inputs.jsonl").rename(tmp_path / "inputs.jsonl")
    assert predictions(inferencer(str(moved), image_folder=images)) == [first, second]


def test_the_last_of_several_turns_is_answered(inferencer, images):
    turns = [
        dict(question=[IMAGE, dict(type="text", text="what is this?")], answer="red"),
        dict(question=[IMAGE, dict(type="text", text="and this?")], answer="unknown to the model"),
    ]
    inputs = dict(id="two", images=["0.png", "1.png"], turns=turns)
    row = inferencer(inputs, image_folder=images)["predictions"][0]
    row_without_prediction = dict(
        index=0, id="two", images=["0.png", "1.png"], question="and this?", answer="unknown to the model"
    )
    assert {key: value for key, value in row.items() if key != "prediction"} == row_without_prediction
    chat, conversation = inferencer.chat, inferencer.chat.start()
    conversation.turns, conversation.images = turns[:1], [Image.open(images / "0.png").convert("RGB")]
    (expected,) = chat.answer_all(
        [conversation.with_question("and this?", [Image.open(images / "1.png").convert("RGB")])]
    )
    assert row["prediction"] == expected
    other = dict(inputs, turns=[dict(turns[0], answer="blue circle square"), turns[1]])
    assert predictions(inferencer(other, image_folder=images)) != [expected]


def test_written_files(inferencer, images, tmp_path, monkeypatch):
    monkeypatch.setattr("mmgpt.apis.inferencer.ANSWERS_PER_SHEET", 2)
    turns = [dict(question="who?", answer="<b>me</b>"), dict(question="what <i>colour</i>?", answer="grün")]
    inputs = [images / "0.png", dict(images=[images / "1.png", images / "2.png"], turns=turns), (None, "two?")]
    out = tmp_path / "made" / "here"
    result = inferencer(inputs, question="what shape?", out_dir=out, return_vis=True)
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == result["predictions"]
    assert "grün" in lines[1]
    sheets = result["visualization"]
    assert [sheet.dtype for sheet in sheets] == [np.uint8] * 2
    for number, sheet in enumerate(sheets, start=1):
        assert np.array_equal(np.asarray(Image.open(out / f"answers_{number}.png")), sheet)
    page = (out / "answers.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3
    assert page.count("<article") == 3
    # Which image a question shows is told where there are several; all text is text.
    for text in ("[1] [2] who?", "&lt;b&gt;me&lt;/b&gt;", "what &lt;i&gt;colour&lt;/i&gt;?", "expected: grün", "two?"):
        assert text in page
    assert "<b>me" not in page
    assert inferencer.about["model"] in page
    assert inferencer(inputs, question="what shape?")["visualization"] == []


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("missing.png", "input 1: image 'missing.png': no such file"),
        (dict(images=["notes.txt"], question="what?"), "input 1: image 'notes.txt': cannot be read"),
        (dict(images="0.png", question="what?"), "input 1: images must be a list"),
        (dict(images=["0.png", "1.png"], turns=[dict(question=[IMAGE])]), "input 1: 2 images, but 1 image contents"),
        (dict(images=["0.png"], question=" "), "input 1: the question is empty"),
        (dict(image="0.png", question="what?"), "input 1: unknown key 'image': a record has id, images, turns"),
        (dict(turns=[dict(question="a?"), dict(question="b?")]), "input 1: turn 0 has no answer"),
        (dict(turns=[]), "input 1: a sample needs a list with at least one turn"),
        (dict(question="what? " * 400), "input 1: a prompt of .* tokens, the limit is"),
        (("0.png", "a?", "b?"), r"input 1: a tuple is a pair \(image, question\), got 3 values"),
        (("0.png", None), "input 1: there is no question"),
        (np.zeros((2, 2, 3)), "input 1: images must be a list of files or PIL images"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_wrong_input_is_named_before_the_model_runs(inferencer, images, monkeypatch, item, message):
    monkeypatch.chdir(images)
    monkeypatch.setattr(inferencer.chat, "answer_all", lambda *_: pytest.fail("the model ran"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inferencer([("0.png", "fine?"), item], batch_size=1, question=None if isinstance(item, tuple) else "what?")


def test_an_image_that_does_not_reach_the_model_is_named(inferencer, images, monkeypatch):
    monkeypatch.setattr(inferencer.chat, "sees_images", False)
    with pytest.raises(ValueError, match="input 1: the gates of all gated blocks are zero"):
        inferencer([(None, "fine?"), (images / "0.png", "what?")])


def test_wrong_calls(inferencer, images, tmp_path):
    with pytest.raises(ValueError, match="batch_size=0 must be 1 or more"):
        inferencer((None, "a?"), batch_size=0)
    with pytest.raises(ValueError, match="there are no inputs"):
        inferencer([])
    with pytest.raises(ValueError, match="input 0: there is no question: put one into each input, or pass `question`"):
        inferencer([images / "0.png"])
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        inferencer(tmp_path / "none.jsonl")


def test_a_config_file_and_a_checkpoint_and_a_progress_bar(chat_config, chat_checkpoint, capsys):
    other = MMGPTInferencer(chat_config, chat_checkpoint, "cpu")
    capsys.readouterr()
    assert other((None, "what?"))["predictions"][0]["index"] == 0
    assert "Inference" in capsys.readouterr().out
    assert other.about == dict(model=chat_config, weights=chat_checkpoint)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="not an exported model"):
        MMGPTInferencer(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no config file"):
        MMGPTInferencer(tmp_path / "none.py")


def test_precision(tiny_base, images):
    rough = MMGPTInferencer(tiny_base, device="cpu", show_progress=False, precision="bfloat16")
    assert next(rough.chat.model.parameters()).dtype == torch.bfloat16
    assert predictions(rough([(images / "0.png", "what colour?")]))[0]
