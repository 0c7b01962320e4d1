"""The file for the VQA leaderboard: its form, and what is refused."""

import json

import pytest
from mmengine.evaluator import Evaluator

from mmgpt.registry import METRICS

IDS = [262144005, 262144000, 393225001]


@pytest.fixture
def questions(tmp_path):
    file = tmp_path / "questions.json"
    content = {"info": {}, "questions": [{"image_id": 1, "question": "What?", "question_id": name} for name in IDS]}
    file.write_text(json.dumps(content))
    return str(file)


def answers(names):
    return [{"id": str(name), "dataset": "vqav2", "prediction": f"Answer {name}."} for name in names]


def write(questions, out, samples):
    metric = METRICS.build(dict(type="VQALeaderboardFile", question_file=questions, out_file=str(out)))
    return Evaluator(metric).offline_evaluate(samples, chunk_size=2)


def test_ids_are_numbers_and_answers_are_as_generated(questions, tmp_path):
    out = tmp_path / "new" / "vqa_test-dev.json"
    assert write(questions, out, answers(sorted(IDS))) == {"leaderboard/answers": 3}
    assert json.loads(out.read_text()) == [{"question_id": name, "answer": f"Answer {name}."} for name in IDS]


@pytest.mark.parametrize(
    "names, message",
    [
        (IDS[:2], "missing: '393225001'"),
        (IDS + IDS[:1], "several predictions: '262144005'"),
        (IDS + [7], "unknown: '7'"),
    ],
)
def test_every_question_needs_one_answer(questions, tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        write(questions, tmp_path / "out.json", answers(names))
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("content", [{"annotations": []}, [], {"questions": [{"id": 1}]}])
def test_another_file_is_refused_before_anything_is_answered(tmp_path, content):
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotations.json is not a file of VQA questions"):
        METRICS.build(dict(type="VQALeaderboardFile", question_file=str(file), out_file="out.json"))
