import json
import math
from pathlib import Path

import pytest
import torch

from tests.engine.test_optim import schedule


def test_the_log_has_the_mean_of_a_step_for_each_of_its_batches(make_runner):
    """Steps of 4 and 2 batches."""
    runner, outputs = make_runner(accumulative_counts=4), []
    step = runner.model.train_step
    runner.model.train_step = lambda *a, **k: (outputs.append(step(*a, **k)), outputs[-1])[1]
    runner.train()
    losses = torch.stack([output["loss"].detach() for output in outputs])
    expected = torch.cat([part.mean().expand(len(part)) for part in losses.split([4, 2, 4, 2])])
    logged = runner.message_hub.get_scalar("train/loss").data[0]
    torch.testing.assert_close(torch.tensor(logged, dtype=torch.float32), expected)


KEYS = "optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(gated=dict(lr_mult=10), norm=dict(lr_mult=0.5))))\n"


def test_the_log_has_the_rate_of_each_group_at_every_step(make_runner):
    """A warm-up to the fourth of 12 batches, times a cosine over all of them."""
    runner = make_runner(KEYS)
    runner.train()
    lr = schedule("tiny").lr
    expected = [
        lr * min(1, 1e-3 + (1 - 1e-3) * batch / 3) * (1 + math.cos(math.pi * batch / 12)) / 2 for batch in range(12)
    ]
    [file] = Path(runner.work_dir).glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["base_lr"] for row in rows] == pytest.approx(expected)
    assert [row["gated.lr"] for row in rows] == pytest.approx([10 * rate for rate in expected])
    assert [row["norm.lr"] for row in rows] == pytest.approx([0.5 * rate for rate in expected])
    assert "gated.lr: 2.0000e-05" in Path(runner.logger.log_file).read_text()


def test_groups_of_one_rate_are_logged_once(make_runner):
    runner = make_runner("optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(gated=dict(decay_mult=2))))\n")
    runner.train()
    assert {name for name in runner.message_hub.log_scalars if name.endswith("lr")} == {"train/lr", "train/base_lr"}
