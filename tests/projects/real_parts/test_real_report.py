"""The report of tools/quickstart.sh --real, on a small evaluation and a model that says what it is told to."""

import json
import os
from types import SimpleNamespace

import pytest
import real_report
from PIL import Image

ROWS = [
    ("shape", "What shape is it?", "circle", "circle"),
    ("color", "What color is it?", "blue", "red"),
    ("yes_no", "Is it blue?", "yes", "yes"),
    ("yes_no", "Is it red?", "no", "no"),
]
METRICS = {"seed 0": {"accuracy/mean": 66.7}, "seed 0, other image": {"accuracy/mean": 33.3}}


def evaluation(folder, metrics, correct):
    folder.mkdir(parents=True)
    rows = []
    for index, (name, question, answer, prediction) in enumerate(ROWS):
        row = dict(index=index, id=str(index), dataset=name, source="visual", images=["test/0.png"], question=question)
        rows.append(row | dict(answer=answer, prediction=prediction if correct else "what"))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"metrics": {"type": "AnswerAccuracy"}}
    (folder / "result.json").write_text(json.dumps({"metrics": metrics, "samples": len(rows), "settings": settings}))


class Chat:
    """Says the capital of the Netherlands, and repeats all other questions."""

    @classmethod
    def from_config(cls, config, checkpoint):
        return cls()

    def start(self):
        return []

    def ask(self, conversation, question, images=(), generation=None):
        conversation.append((question, len(images)))
        return "Amsterdam." if "Netherlands" in question else question


@pytest.fixture
def report(tmp_path, monkeypatch):
    out, data = tmp_path / "out", tmp_path / "data"
    evaluation(out / "evaluation" / "latest-1-2", METRICS["seed 0"], correct=True)
    evaluation(out / "evaluation" / "latest-3-4", METRICS["seed 0, other image"], correct=False)
    os.utime(out / "evaluation" / "latest-1-2" / "result.json", (1, 1))
    (out / "steps.json").write_text(json.dumps({"train": {"seconds": 3.0, "peak_memory_gib": 1.5}}))
    (data / "test").mkdir(parents=True)
    Image.new("RGB", (64, 64), "blue").save(data / "test" / "0.png")
    turns = [("What shape is it?", "circle"), ("Is it blue?", "no"), ("Is it blue?", "yes"), ("Is it blue?", "no")]
    questions = tmp_path / "easy_vqa" / "data" / "train" / "questions.json"
    questions.parent.mkdir(parents=True)
    questions.write_text(json.dumps([[question, answer, 0] for question, answer in turns]))
    monkeypatch.setattr(real_report, "package_folder", lambda name: tmp_path / name)
    before = dict.fromkeys(real_report.HELD_OUT, "No idea.") | {"What is a hammer?": "A tool."}
    monkeypatch.setattr(real_report, "Chat", Chat)
    monkeypatch.setattr(real_report, "answers", lambda path, questions, ended: before.items())
    monkeypatch.setattr(real_report, "find_scalars", lambda out: [])
    monkeypatch.setattr(real_report, "read_scalars", lambda files: {"tokens_per_s": [(1, 10.0), (2, 30.0), (3, 20.0)]})
    cfg = SimpleNamespace(data_root=str(data), language_model="base")
    monkeypatch.setattr(real_report, "load_config", lambda path: cfg)
    real_report.main(["config.py", str(out)])
    return out, json.loads((out / "report.json").read_text())


def test_the_scores_are_those_of_all_questions_and_of_each_kind(report):
    _, content = report
    assert content["questions"] == {"shape": 1, "color": 1, "yes_no": 2, "all": 4}
    assert content["tuned"] == {"all": 75, "shape": 100, "not_yes_no": 50, "color": 0, "yes_no": 100}
    assert content["other_image"] == {"all": 0, "shape": 0, "not_yes_no": 0, "color": 0, "yes_no": 0}


def test_the_blind_guesser_gives_the_most_frequent_answer_to_a_question(report):
    _, content = report
    assert content["blind_guesser"] == {"all": 25, "shape": 100, "not_yes_no": 50, "color": 0, "yes_no": 0}


def test_an_answer_is_kept_unless_only_the_base_was_right(report):
    _, content = report
    lost = [row["question"] for row in content["text_kept"]["answers"] if not row["kept"]]
    assert lost == ["What is a hammer?"]
    assert (content["text_kept"]["kept"], content["text_kept"]["of"]) == (19, 20)


def test_the_conversation_ends_with_a_question_without_an_image(report):
    out, content = report
    assert [turn["answer"] for turn in content["conversation"]["turns"]] == [*real_report.QUESTIONS, "Amsterdam."]
    assert "> What is the capital of the Netherlands?\n      Amsterdam." in (out / "report.txt").read_text()


def test_the_report_has_speed_and_memory_and_a_sheet(report):
    out, content = report
    assert content["training_tokens_per_second"] == 20
    assert content["steps"] == {"train": {"seconds": 3.0, "peak_memory_gib": 1.5}}
    assert Image.open(out / "pictures.png").width > 500
    assert "19 of 20 questions" in (out / "report.txt").read_text()
