"""tools/test.py and dist_test.sh: one process, two, and one that is killed half way give the same predictions."""

import hashlib
import json
import signal
import time
from importlib.metadata import version

import pytest
import torch

from mmgpt.engine.evaluation_loop import WholeBatches, cut_predictions
from mmgpt.evaluation.predictions import Predictions
from mmgpt.models.weights.trainable import trainable_state
from tests.helpers.launching import run_launcher
from tests.helpers.scripts import ROOT, run_script, started_script
from tests.helpers.stub_training import StubData, StubModel, write_config

TOOL = ROOT / "tools" / "test.py"
SIZE = 13
SLOW = ["test_dataloader.dataset.seconds=0.15"]


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A config with 13 samples in batches of 2, and a checkpoint for it."""
    folder = tmp_path_factory.mktemp("stub")
    torch.manual_seed(0)
    torch.save(dict(state_dict=trainable_state(StubModel())), folder / "epoch.pth")
    return write_config(folder, more=f"test_dataloader['dataset']['size'] = {SIZE}"), folder / "epoch.pth"


def evaluate(stub, work_dir, *arguments):
    run_script(TOOL, *stub, "--work-dir", work_dir, *arguments).check_returncode()
    return written(work_dir)


def written(work_dir):
    """The folder of the one evaluation there, its predictions as text, its result."""
    (folder,) = (work_dir / "evaluation").iterdir()
    assert {path.name for path in folder.iterdir()} == {"predictions.jsonl", "result.json"}
    return folder, (folder / "predictions.jsonl").read_text(), json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(stub, tmp_path_factory):
    """An evaluation in one go."""
    return evaluate(stub, tmp_path_factory.mktemp("whole"))


def test_result_file_has_settings_checksums_and_versions(stub, whole):
    folder, predictions, result = whole
    rows = [json.loads(line) for line in predictions.splitlines()]
    assert [row["index"] for row in rows] == list(range(SIZE))
    assert result["metrics"]["error"] == pytest.approx(sum(row["error"] for row in rows) / SIZE)
    assert result["samples"] == SIZE
    assert result["processes"] == 1
    assert result["seconds"] >= 0
    made_of = result["settings"]
    checkpoint = stub[1]
    assert made_of["checkpoint"] == {str(checkpoint): hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    assert made_of["model"] == {"type": "StubModel"}
    assert made_of["data"]["size"] == SIZE
    assert made_of["seed"] == 0
    assert made_of["generation"] == {"eos_token_id": [2]}
    assert result["versions"]["torch"] == version("torch")
    assert result["command"][0] == "test.py"
    assert folder.name.startswith("epoch-")


def test_two_processes_give_the_predictions_of_one(stub, whole, tmp_path):
    run_launcher("dist_test.sh", *stub, 2, "--work-dir", tmp_path).check_returncode()
    folder, predictions, result = written(tmp_path)
    assert (folder.name, predictions) == (whole[0].name, whole[1])
    assert result["metrics"] == whole[2]["metrics"]
    assert result["processes"] == 2


def test_a_killed_evaluation_is_resumed_to_the_same_result(stub, whole, tmp_path):
    slow = ["--cfg-options", *SLOW]
    with started_script(TOOL, *stub, "--work-dir", tmp_path, *slow) as process:
        deadline = time.monotonic() + 240
        while not len(list(tmp_path.glob("evaluation/*/part-0.jsonl"))) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert process.exitcode == -signal.SIGKILL
    (part,) = tmp_path.glob("evaluation/*/part-0.jsonl")
    done = len(part.read_text().splitlines())
    assert 0 < done < SIZE
    part.write_text(part.read_text() + '{"index": 1')  # as if it had been killed while it wrote
    folder, predictions, resumed = evaluate(stub, tmp_path, "--resume", *slow)
    _, expected, result = whole
    assert predictions == expected
    assert folder == part.parent
    for other in (result, resumed):
        del other["seconds"], other["command"], other["settings"]["data"]
    assert resumed == result


@pytest.mark.parametrize("repaired", [True, False])
def test_answers_are_kept_when_a_metric_fails(stub, whole, tmp_path, repaired):
    """The metric is repaired, or only its surroundings: with --resume nothing is asked again."""
    log = tmp_path / "asked.txt"
    options = ["--cfg-options", f"test_dataloader.dataset.log={log}"]
    broken = [*options, "test_evaluator.broken=True"]
    for more in ([], ["--resume"]):
        done = run_script(TOOL, *stub, "--work-dir", tmp_path, *more, *broken)
        assert done.returncode != 0
        assert "this metric is broken" in done.stderr
        assert "--resume scores them without asking again" in done.stdout + done.stderr
        assert len(log.read_text().splitlines()) == SIZE
    (folder,) = (tmp_path / "evaluation").iterdir()
    assert (folder / "predictions.jsonl").read_text() == whole[1]
    if repaired:
        run_script(TOOL, *stub, "--work-dir", tmp_path, "--resume", *options).check_returncode()
        results = [json.loads(path.read_text()) for path in tmp_path.glob("evaluation/*/result.json")]
        assert [result["metrics"] for result in results] == [whole[2]["metrics"]]
        assert len(log.read_text().splitlines()) == SIZE


class Split:
    def __init__(self, rank, world_size):
        self.rank, self.world_size, self.dataset = rank, world_size, StubData(SIZE)


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_processes_share_whole_batches(world):
    shares = [list(WholeBatches(Split(rank, world), 2)) for rank in range(world)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(SIZE))
    assert all(batch[0] % 2 == 0 and len(batch) == min(2, SIZE - batch[0]) for share in shares for batch in share)
    batches = WholeBatches(Split(0, 1), 2)
    batches.answered = frozenset([0, 1, 2, 12])
    assert list(batches) == [[2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert len(batches) == 5


def test_missing_and_surplus_predictions_are_an_error(tmp_path):
    predictions = Predictions(tmp_path)
    predictions.add({"index": i} for i in (0, 3))
    with pytest.raises(ValueError, match=r"2 predictions for 3 samples; wrong are \[1, 2, 3\]"):
        predictions.finish(3)


def test_generated_text_is_cut_and_chosen_answers_stay():
    rows = [{"prediction": "a cat Question: what"}, {"prediction": "Short sentences", "scores": [0.0]}]
    cut_predictions(rows, ["Question", "Short"])
    assert [row["prediction"] for row in rows] == ["a cat", "Short sentences"]
    cut_predictions(rows[:1], [])
    assert rows[0]["prediction"] == "a cat"
