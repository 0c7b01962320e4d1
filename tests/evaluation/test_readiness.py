"""Benchmarks that could not be scored are refused before anything is answered, and before a model is built."""

import json
from pathlib import Path

import pytest

from mmgpt.datasets import ImageControl, InstructionDataset, JointDataset
from mmgpt.datasets.transforms import AddCandidates, FormatPrompt, TokenizeSegments
from mmgpt.evaluation.readiness import build_metrics, check_questions, questions_of
from mmgpt.models.tokenizer import load_tokenizer
from tests.helpers.scripts import ROOT, run_script

PIPELINES = Path(__file__).parents[2] / "configs" / "_base_" / "datasets" / "pipelines.py"
TEN = ["red"] * 10


def record(name="1", **turn):
    return {"id": name, "turns": [{"question": "What colour?", **turn}]}


@pytest.fixture
def data(tmp_path):
    """A function that makes a dataset of these records."""

    def make(*records, steps=()):
        file = tmp_path / "records.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        pipeline = [FormatPrompt("short", open_last=True), *steps]
        return InstructionDataset("conversation", "language", name="d", ann_file=str(file), pipeline=pipeline)

    return make


def check(dataset, **metric):
    check_questions(build_metrics(metric), questions_of(dataset))


def scores(rule, **more):
    return dict(type="BenchmarkScores", rule=rule, **more)


@pytest.mark.parametrize(
    "records, metric, message",
    [
        ([record(answers=TEN), record(answers=TEN)], scores("vqa"), "ids of several predictions: .'d', '1'."),
        ([record(answers=TEN), record("2", answers=["red"] * 3)], scores("vqa"), "id '2': VQA accuracy needs 10 annot"),
        ([record(answer="red")], scores("openflamingo"), "needs 10 annotators"),
        ([record(answers=["red"] * 9)], scores("textvqa"), "needs 10 annotators"),
        ([record(answers=["red"] * 11)], scores("direct_answer"), "needs 10 annotators"),
        ([record(answers=TEN)], scores("vizwiz", by=["question_type"]), "no sample has a tag 'question_type'"),
        ([record(answer="a")], scores("choice"), "list of its choices is empty"),
        ([record(answer="a", choices=["b", "c"])], scores("choice"), "not among its choices"),
        ([record(answer="maybe")], scores("yes_no"), "must be yes or no, got 'maybe'"),
        ([record()], scores("exact"), "neither `answer` nor `answers`"),
        ([record()], dict(type="AnswerAccuracy"), "neither `answer` nor `answers`"),
        (
            [record(answer="a")],
            dict(type="Perplexity"),
            "does not have one score, .*: use .*likelihood_steps",
        ),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(data, records, metric, message):
    dataset = data(*records)
    with pytest.raises(ValueError, match=message):
        check(dataset, **metric)
    with pytest.raises(ValueError, match=message):
        check(JointDataset(language=[dataset]), **metric)


@pytest.mark.parametrize(
    "records, metric",
    [
        ([record(answers=TEN), record("2", answers=["a", "b"] * 5)], scores("vqa")),
        ([record(answer="b", choices=["b", "c"])], scores("choice")),
        ([record(answer="Yes"), record("2", answer="no")], scores("yes_no")),
        ([record(answers=["a"]), record("2", answer="b")], scores("exact")),
        ([record(answer="a"), record(answer="a")], dict(type="AnswerAccuracy")),
    ],
)
def test_questions_that_can_be_scored_pass(data, records, metric):
    check(data(*records), **metric)
    check(ImageControl(data(*records), "zero"), **metric)


def test_captions_need_references(data):
    pytest.importorskip("pycocoevalcap")
    check(data(record(answers=["a dog"]), record("2", answer="a cat")), **scores("caption"))
    with pytest.raises(ValueError, match="neither `answer` nor `answers`"):
        check(data(record(answers=["a dog"]), record("2")), **scores("caption"))


def test_candidates_are_those_of_the_pipeline(data, tiny_llama):
    tokenize = dict(type="TokenizeSegments", tokenizer=load_tokenizer(tiny_llama), max_length=100)
    steps = [TokenizeSegments(tokenize["tokenizer"], 100), AddCandidates(tokenize, answers="answer")]
    check(data(record(answer="red"), steps=steps), type="Perplexity")
    with pytest.raises(ValueError, match="cannot choose among the answers"):
        check(data(record(), steps=steps), type="Perplexity")
    steps[1] = AddCandidates(tokenize, answers=["red", "blue"])
    check(data(record(answer="red"), steps=steps), **scores("choice"))
    with pytest.raises(ValueError, match="not among its choices"):
        check(data(record(answer="green"), steps=steps), **scores("choice"))


@pytest.mark.parametrize(
    "names, problem",
    [(["1", "2", "7"], "unknown: '7'"), (["1"], "missing: '2'"), (["1", "2", "2"], "several predictions: '2'")],
)
def test_the_leaderboard_needs_its_own_questions(data, tmp_path, names, problem):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"questions": [{"question_id": 1}, {"question_id": 2}]}))
    metric = dict(type="VQALeaderboardFile", question_file=str(file), out_file="out.json")
    check(data(record("2"), record("1")), **metric)
    with pytest.raises(ValueError, match=problem):
        check(data(*map(record, names)), **metric)


@pytest.mark.parametrize("names, problem", [(["1", "2"], "whole numbers as question_id, got '1'"), ([3, 3], "3")])
def test_the_leaderboard_takes_whole_numbers(tmp_path, names, problem):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"questions": [{"question_id": name} for name in names]}))
    with pytest.raises(ValueError, match=problem):
        build_metrics([dict(type="VQALeaderboardFile", question_file=str(file), out_file="out.json")])


def test_other_kinds_of_datasets_are_not_checked():
    assert questions_of([{"anything": 1}]) is None
    check([{"anything": 1}], **scores("vqa"))


def test_a_benchmark_is_refused_before_its_model_is_built(tmp_path, tiny_llama):
    records = [record(answers=["red"] * 3)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    (tmp_path / "config.py").write_text(f"""
_base_ = {str(PIPELINES)!r}
default_scope = 'mmgpt'
language_model = {tiny_llama!r}
model = dict(type='NothingIsBuiltFromIt')
test_dataloader = dict(batch_size=1, num_workers=0, collate_fn=dict(type='collate_conversations'), dataset=dict(
    type='InstructionDataset', name='mine', source='language', parser='conversation',
    ann_file={str(tmp_path / "test.jsonl")!r}, pipeline=['${{question_steps}}']))
test_cfg = dict(type='EvaluationLoop')
test_evaluator = dict(type='BenchmarkScores', rule='vqa')
""")
    arguments = [tmp_path / "config.py", "--work-dir", tmp_path / "work"]
    done = run_script(ROOT / "tools" / "test.py", *arguments)
    assert done.returncode == 1
    assert "VQA accuracy needs 10 annotators' answers, got ['red', 'red', 'red']" in done.stderr
    assert "NothingIsBuiltFromIt" not in done.stderr
    assert "Traceback" not in done.stderr
