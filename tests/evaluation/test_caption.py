"""Caption scores: those of pycocoevalcap's own evaluation, what is left out without Java or SPICE's files."""

import shutil
from subprocess import CalledProcessError
from types import SimpleNamespace

import pytest

pytest.importorskip("pycocoevalcap.eval")

from mmengine.evaluator import Evaluator

from mmgpt.evaluation.metrics import caption
from mmgpt.registry import METRICS

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java")

REFERENCES = [
    ["A brown dog runs on the beach.", "A dog is running near the sea.", "The dog's on a beach, running."],
    ["Two men play chess.", "Two people playing a game of chess in a park"],
    ["A plate of food (rice; beans) on a table.", "Rice & beans."],
    ["An X-ray of a hand"],
]
METEOR = 22.67503148373519
PREDICTIONS = ["a dog running on the beach", "Two men playing chess in a park.", "", "a hand"]


def samples(predictions=PREDICTIONS, tags=lambda number: {}):
    return [
        {
            "id": str(number),
            "dataset": "coco",
            "prediction": text,
            "answer": "",
            "answers": references,
            "tags": tags(number),
        }
        for number, (text, references) in enumerate(zip(predictions, REFERENCES, strict=True))
    ]


def scores(predictions, by=()):
    metric = METRICS.build(dict(type="BenchmarkScores", rule="caption", by=by))
    results = Evaluator(metric).offline_evaluate(predictions, chunk_size=3)
    return {key.removeprefix("caption/"): value for key, value in results.items()}


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(caption, "print_log", lambda text, *_: messages.append(text))
    return messages


class Nothing:
    """Stands for METEOR, slow to start, and for SPICE, which would fetch its files, in pycocoevalcap's evaluation."""

    def compute_score(self, gts, res):
        return 0.0, [0.0] * len(gts)

    def method(self):
        return ""


class Annotations:
    """Stands for pycocotools' COCO: captions by image."""

    def __init__(self, captions):
        self.imgToAnns = {image: [{"caption": text} for text in texts] for image, texts in enumerate(captions)}

    def getImgIds(self):
        return list(self.imgToAnns)


def pycocoevalcap_scores(monkeypatch, predictions, references):
    """All scores of pycocoevalcap's own evaluation but METEOR and SPICE, under our names."""
    import pycocoevalcap.eval

    monkeypatch.setattr(pycocoevalcap.eval, "Meteor", Nothing)
    monkeypatch.setattr(pycocoevalcap.eval, "Spice", Nothing)
    evaluation = pycocoevalcap.eval.COCOEvalCap(Annotations(references), Annotations([[text] for text in predictions]))
    evaluation.evaluate()
    names = {f"BLEU-{n}": f"Bleu_{n}" for n in range(1, 5)} | {"ROUGE-L": "ROUGE_L", "CIDEr": "CIDEr"}
    return {ours: 100 * evaluation.eval[theirs] for ours, theirs in names.items()}


@needs_java
def test_scores_equal_pycocoevalcap_and_spice_is_left_out_without_its_files(monkeypatch, warnings):
    ours = scores(samples())
    theirs = pycocoevalcap_scores(monkeypatch, PREDICTIONS, REFERENCES)
    # METEOR as pycocoevalcap 1.2 gives it: its second start would take as long as all other tests here.
    assert ours == pytest.approx(theirs | {"METEOR": METEOR, "questions": 4})
    assert 50 < ours["CIDEr"] < 1000
    assert len(warnings) == 1
    assert "SPICE is left out: stanford-corenlp-3.6.0.jar and" in warnings[0]


@needs_java
def test_a_group_of_images_is_scored_on_its_own(monkeypatch, warnings):
    # METEOR takes seconds to start.
    meteor = SimpleNamespace(compute_score=lambda targets, predictions: (0.0, []))
    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", lambda: meteor)
    ours = scores(samples(tags=lambda number: {"domain": "in" if number < 2 else "out"}), by=["domain"])
    theirs = pycocoevalcap_scores(monkeypatch, PREDICTIONS[:2], REFERENCES[:2])
    assert {name: ours[f"domain/in/{name}"] for name in theirs} == pytest.approx(theirs)
    assert ours["domain/out/questions"] == 2
    assert ours["domain/in/CIDEr"] != pytest.approx(ours["CIDEr"])


@needs_java
@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"])
def test_a_line_break_in_a_caption_does_not_shift_the_next_captions(line_break):
    rows = [caption.CaptionRule().score_sample(sample) for sample in samples([f"a{line_break}dog", *PREDICTIONS[1:]])]
    tokens = caption._official_tokens(dict(enumerate(row["prediction"] for row in rows)))
    assert tokens == {0: ["a dog"], 1: ["two men playing chess in a park"], 2: [""], 3: ["a hand"]}


def test_without_java_scores_have_other_names_and_a_warning_says_why(monkeypatch, warnings):
    monkeypatch.setattr(caption.shutil, "which", lambda name: None)
    ours = scores(samples())
    assert ours.keys() == {f"plain_{name}" for name in (*caption.BLEU, "ROUGE-L", "CIDEr")} | {"questions"}
    assert 50 < ours["plain_CIDEr"] < 1000
    assert len(warnings) == 1
    assert "no Java: METEOR and SPICE are left out" in warnings[0]


def test_plain_tokens_are_lower_case_words():
    texts = ["The dog's on a Beach, running!", "", "An X-ray (2.5 cm)", "caf\u00e9"]
    tokens = ["the dog's on a beach running", "", "an x-ray 2 5 cm", "caf\u00e9"]
    assert caption._plain_tokens({7: texts}) == {7: tokens}


def with_spice(monkeypatch, tmp_path, compute_score):
    from pycocoevalcap.spice import spice

    (tmp_path / "lib").mkdir()
    for name in caption.SPICE_FILES:
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr(spice, "__file__", str(tmp_path / "spice.py"))
    monkeypatch.setattr(spice, "get_stanford_models", lambda: None)
    monkeypatch.setattr(spice.Spice, "compute_score", compute_score)


def test_spice_is_used_when_its_files_are_there(monkeypatch, tmp_path, warnings):
    with_spice(
        monkeypatch, tmp_path, lambda self, gts, res: (0.25 if gts[0] == ["a dog"] and res[0] == ["dog"] else 0, [])
    )
    assert caption._spice({0: ["dog"]}, {0: ["a dog"]}) == {"SPICE": 25.0}
    assert not warnings


def test_spice_is_left_out_when_it_fails(monkeypatch, tmp_path, warnings):
    def fail(self, gts, res):
        raise CalledProcessError(1, ["java", "-jar", "spice-1.0.jar"])

    with_spice(monkeypatch, tmp_path, fail)
    assert caption._spice({0: ["dog"]}, {0: ["a dog"]}) == {}
    assert len(warnings) == 1
    assert "spice-1.0.jar" in warnings[0]
    assert "written for Java 8" in warnings[0]


def test_references_are_the_answers_or_else_the_one_answer():
    sample = {"id": "3", "dataset": "coco", "prediction": "a dog", "answer": "A dog.", "answers": []}
    assert caption.CaptionRule().score_sample(sample) == {"prediction": ["a dog"], "references": ["A dog."]}
    assert caption.CaptionRule().score_sample(sample | {"answers": ["A dog.", "A cat."]})["references"] == [
        "A dog.",
        "A cat.",
    ]
    with pytest.raises(ValueError, match="'3' of dataset 'coco' has neither"):
        caption.CaptionRule().score_sample(sample | {"answer": ""})
