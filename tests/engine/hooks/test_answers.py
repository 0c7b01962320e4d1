"""AnswersHook in training runs of the stub model: what it shows, and that training does not notice it."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

from mmgpt.cli import load_config
from mmgpt.engine.hooks.answers import AnswersHook
from mmgpt.registry import MODELS
from tests.helpers.launching import run_on_two
from tests.helpers.stub_training import StubModel, write_config

ROOT = Path(__file__).parents[3]


@MODELS.register_module(force=True)
class Answerer(StubModel):
    """Also answers questions, at random and through its layers: 'red', and whether it trains and keeps gradients."""

    def forward(self, x=None, y=None, mode="loss", metas=(), **batch):
        if x is not None:
            return super().forward(x, y, mode)
        print("answering")
        random.random(), np.random.rand()
        self.gated(self.norm(torch.rand(4, 4)))
        state = f"training {self.training}, gradients {torch.is_grad_enabled()}"
        return [{**meta, "prediction": "red" if meta["id"] == "q1" else state} for meta in metas]


MORE = """
model = dict(type='Answerer')
custom_imports = dict(imports=['tests.helpers.stub_training', 'tests.engine.hooks.test_answers'])
questions = dict(
    dataset=dict(type='InstructionDataset', name='colours', parser='conversation', data_root={root!r},
        ann_file='q.jsonl', data_prefix=dict(img='images'), test_mode=True,
        pipeline=[dict(type='LoadImages'), dict(type='PrepareImages', size=8, mean=[0.5] * 3, std=[0.5] * 3),
            dict(type='FormatPrompt', template='short', open_last=True),
            dict(type='TokenizeSegments', tokenizer={tokenizer!r}, max_length=200), dict(type='PackInputs')]),
    collate_fn=dict(type='collate_conversations', padding_side='left'))
"""
HOOK = "default_hooks['answers'] = dict(type='AnswersHook', loader='${questions}', count=2, interval=4)\n"


@pytest.fixture
def make_runner(tmp_path, tiny_llama):
    """A function that makes a runner of twelve steps, with more of a config; four questions, q0 to q3."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "red.png")
    turn = {"question": "what is it?", "answer": "red"}
    records = [{"id": f"q{i}", "images": ["red.png"], "turns": [turn]} for i in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def make(name, more="", **options):
        text = MORE.format(root=str(tmp_path), tokenizer=tiny_llama) + more
        cfg = load_config(write_config(tmp_path, more=text), options)
        cfg.work_dir, cfg.experiment_name = str(tmp_path / name), f"{tmp_path.name}_{name}"
        return Runner.from_cfg(cfg)

    return make


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def logged(folder):
    return next(folder.glob("*/*.log")).read_text()


def test_answers_are_logged_and_drawn(make_runner, tmp_path):
    make_runner("run", HOOK).train()
    log = logged(tmp_path / "run")
    # Two of the four questions are asked, the middle of each half; in eval mode, without gradients.
    lines = "held-out answers after {} batches, 1 of 2 right\n    colours: 'what is it?': 'red', expected 'red'\n"
    lines += "    colours: 'what is it?': 'training False, gradients False', expected 'red'\n"
    assert all(lines.format(step) in log for step in (4, 8, 12))
    assert log.count("held-out answers") == 3
    images = sorted((tmp_path / "run").glob("*/vis_data/vis_image/*.png"))
    assert [path.name for path in images] == ["answers_12.png", "answers_4.png", "answers_8.png"]
    # The picture is the red one of the questions.
    pixels = np.asarray(Image.open(images[0]).convert("RGB")).reshape(-1, 3)
    assert (pixels == (255, 0, 0)).all(axis=1).mean() > 0.2


def test_training_is_unchanged_by_the_answers(make_runner, tmp_path):
    plain, shown = make_runner("plain"), make_runner("shown", HOOK)
    plain.train(), shown.train()
    assert shown.model.training
    assert "held-out" not in logged(tmp_path / "plain")
    before, after = weights(plain), weights(shown)
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


def test_a_resumed_run_with_answers_equals_the_uninterrupted_one(make_runner, tmp_path):
    whole = make_runner("whole", HOOK)
    whole.train()
    # Half of the run, at its own learning rates.
    checkpoint = tmp_path / "whole" / "iter_9.pth"
    resumed = make_runner("resumed", HOOK, resume=True, load_from=str(checkpoint))
    resumed.train()
    before, after = weights(whole), weights(resumed)
    assert all(before[name].equal(after[name]) for name in before)
    assert logged(tmp_path / "resumed").count("held-out answers") == 1


def test_two_processes_answer_and_one_logs(tmp_path, make_runner, tiny_llama):
    make_runner("unused", HOOK)
    done = run_on_two(tmp_path / "stub.py", "--work-dir", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.stdout.count("held-out answers"), done.stdout.count("answering")) == (1, 2)
    assert [path.name for path in (tmp_path / "two").glob("*/vis_data/vis_image/*")] == ["answers_4.png"]


def test_mistakes_are_errors_before_training(make_runner, tmp_path):
    with pytest.raises(ValueError, match="count=0 and interval=1 must be 1 or more"):
        AnswersHook({"dataset": {}}, count=0, interval=1)
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "open", "images": [], "turns": [{"question": "what?"}]}) + "\n")
    with pytest.raises(ValueError, match="sample 'open' of dataset 'colours' has neither `answer` nor `answers`"):
        make_runner("open", HOOK).train()


def test_metrics_and_answers_reach_tensorboard(make_runner, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    backends = "visualizer['vis_backends'] = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]\n"
    runner = make_runner("run", HOOK + "visualizer = dict()\n" + backends)
    runner.train()
    metrics = runner.test()
    [folder] = (tmp_path / "run").glob("*/vis_data")
    written = events.EventAccumulator(str(folder)).Reload()
    assert {"loss", "lr"} <= set(written.Tags()["scalars"])
    assert len(written.Images("answers")) == 3
    assert [scalar.value for scalar in written.Scalars("error")] == pytest.approx([metrics["error"]])
