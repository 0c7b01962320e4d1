"""AnswerAccuracy: what counts as right, how questions are grouped, what is written, what is refused."""

import json

import pytest
import torch.distributed
import torch.multiprocessing as multiprocessing
from mmengine.evaluator import Evaluator

from mmgpt.evaluation import AnswerAccuracy
from mmgpt.evaluation.metrics import answers
from mmgpt.evaluation.metrics.answers import normalize, scored_row
from mmgpt.registry import METRICS


def sample(dataset, prediction, answer="red", **more):
    return {"id": "1", "dataset": dataset, "source": "visual", "images": ["a.png"], "question": "What colour?",
            "prompt": "…", "answer": answer, "answers": [], "prediction": prediction} | more  # fmt: skip


SAMPLES = [
    sample("colour", "Red."),
    sample("colour", "blue"),
    sample("shape", " circle ", "circle"),
    sample("dolly", "no", "yes", source="language", images=[]),
]


@pytest.mark.parametrize("text", ["red", " Red", "RED.", "red. ", "\nred .\n"])
def test_normalize_ignores_case_white_space_and_one_full_stop(text):
    assert normalize(text) == "red"


@pytest.mark.parametrize("text", ["a red", "red!", "red..", "re d", "", "dark red"])
def test_other_differences_make_an_answer_wrong(text):
    assert not scored_row(sample("colour", text))["correct"]


def test_any_of_several_answers_is_right():
    assert scored_row(sample("caption", "A big dog.", "a dog", answers=["a cat", "a big dog"]))["correct"]
    assert scored_row(sample("caption", "a dog", "a dog", answers=["a cat"]))["correct"]
    assert scored_row(sample("caption", "a cat", "", answers=["a cat"]))["correct"]


def test_a_sample_without_an_answer_is_named():
    with pytest.raises(ValueError, match="'1' of dataset 'colour' has neither"):
        scored_row(sample("colour", "red", "", answers=None))


def test_percent_count_and_means_by_dataset():
    metric = METRICS.build(dict(type="AnswerAccuracy", groups=dict(visual=["colour", "shape"], language=["dolly"])))
    scores = Evaluator(metric).offline_evaluate(SAMPLES, chunk_size=3)
    assert scores == {
        "accuracy/colour": 50.0, "accuracy/shape": 100.0, "accuracy/dolly": 0.0, "accuracy/mean": 50.0,
        "accuracy/visual_mean": 75.0, "accuracy/language_mean": 0.0,
        "accuracy/questions/colour": 2, "accuracy/questions/shape": 1, "accuracy/questions/dolly": 1,
    }  # fmt: skip


def test_predictions_are_written_as_json_lines(tmp_path):
    out = tmp_path / "new" / "answers.jsonl"
    Evaluator(AnswerAccuracy(out_file=str(out))).offline_evaluate([sample("colour", "rot – 赤")])
    (row,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert row["prediction"] == "rot – 赤"
    assert row["correct"] is False
    assert row == sample("colour", "rot – 赤") | {"correct": False}


def test_a_group_with_a_missing_dataset_has_no_mean(monkeypatch):
    warnings = []
    monkeypatch.setattr(answers, "print_log", lambda text, *_: warnings.append(text))
    metric = AnswerAccuracy(groups=dict(visual=["colour", "color"], both=["colour", "dolly"]))
    scores = Evaluator(metric).offline_evaluate(SAMPLES)
    assert "accuracy/visual_mean" not in scores
    assert "accuracy/both_mean" in scores
    assert "accuracy/colour" in scores
    assert len(warnings) == 1
    assert "no mean of group 'visual': no question of ['color'] was evaluated" in warnings[0]


def test_an_empty_group_and_empty_data_are_refused():
    with pytest.raises(ValueError, match="group 'visual' is empty"):
        AnswerAccuracy(groups=dict(visual=[]))
    with pytest.raises(ValueError, match="no prediction"):
        AnswerAccuracy().evaluate(0)


def evaluate_share(rank, folder):
    init = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    # Three questions for two processes: the sampler repeats the first, which must not count twice.
    shares = [[SAMPLES[0], SAMPLES[2]], [SAMPLES[1], SAMPLES[0]]]
    metric = AnswerAccuracy(groups=dict(visual=["colour", "shape"]), collect_dir=f"{folder}/share")
    evaluator = Evaluator(metric)
    evaluator.process(shares[rank])
    scores = evaluator.evaluate(3)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(scores, file)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_count_every_question_once(tmp_path):
    multiprocessing.spawn(evaluate_share, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["accuracy/colour"] == 50.0
    assert first["accuracy/questions/colour"] == 2
    assert first["accuracy/visual_mean"] == 75.0
