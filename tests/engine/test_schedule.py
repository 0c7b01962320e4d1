"""The learning rate of every batch, as it is after MMEngine has built what `fit_schedule` makes of a schedule."""

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from mmgpt.engine.schedule import check_ratios, fit_schedule
from tests.helpers.launching import logs

LR, EPOCH = 2e-3, 10


def rates(schedulers, run, fit=True, name="lr"):
    """The rate of each batch of a run in epochs of 10, stepped as MMEngine's hook does."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    built = []
    for scheduler in fit_schedule(schedulers, run, EPOCH) if fit else schedulers:
        end = run // EPOCH if scheduler.get("by_epoch", True) else run
        cfg = {"end": end, **scheduler}
        built.append(PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=optimizer, epoch_length=EPOCH)))
    values = []
    for batch in range(1, run + 1):
        values.append(optimizer.param_groups[0][name])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or batch % EPOCH == 0:
                scheduler.step()
    return values


@pytest.fixture
def warnings(monkeypatch):
    """The texts of the warnings."""
    lines = []
    monkeypatch.setattr("mmgpt.engine.schedule.print_log", lambda text, *_: lines.append(text))
    return lines


def linear(end, **more):
    return {**dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=end), **more}


@pytest.mark.parametrize("end", [2, 3, 50, 99, 100])
@pytest.mark.parametrize("kind", ["LinearLR", "ConstantLR"])
def test_a_warm_up_that_fits_stays_bit_for_bit(end, kind):
    """It comes to the rate at its last batch."""
    warm_up = linear(end) if kind == "LinearLR" else dict(type=kind, factor=0.1, by_epoch=False, end=end)
    values = rates([warm_up], 100)
    assert values == rates([warm_up], 100, fit=False)
    assert values[end - 2] < 0.99 * LR
    assert values[end - 1] == pytest.approx(LR, rel=1e-12)
    assert 0 < values[0]


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize(
    "warm_up",
    [
        linear(1),
        linear(1, type="LinearParamScheduler", param_name="lr"),
        dict(type="ConstantLR", factor=0.1, by_epoch=False),
        dict(type="LinearLR", start_factor=0.1),  # by epoch
        dict(type="ConstantLR", factor=0.1),
    ],
)
def test_a_warm_up_of_0_or_1_is_left_out(warm_up, end):
    assert rates([{**warm_up, "end": end}], 30) == [LR] * 30


def test_a_warm_up_of_a_fraction_of_an_epoch_below_two_batches_is_left_out():
    assert rates([dict(type="LinearLR", start_factor=0.1, end=0.1, convert_to_iter_based=True)], 30) == [LR] * 30


@pytest.mark.parametrize(
    ("warm_up", "text"),
    [
        (linear(1600), "1600 batches ends after the run of 100; it is cut to 5"),
        (linear(101), "101 batches ends after the run of 100; it is cut to 5"),
        (linear(11, by_epoch=True), "110 batches ends after the run of 100; it is cut to 5"),
        (
            linear(20, by_epoch=True, convert_to_iter_based=True),
            "200 batches ends after the run of 100",
        ),
    ],
)
def test_a_warm_up_longer_than_the_run_is_cut_to_a_twentieth(warm_up, text, warnings):
    values = rates([warm_up], 100)
    assert values[0] == LR / 1000
    assert values[3] < LR
    assert values[4:] == pytest.approx([LR] * 96, rel=1e-12)
    assert f"param_scheduler[0] ({warm_up['type']}): its warm-up of {text}" in warnings[0]


def test_a_constant_warm_up_before_another_scheduler_is_cut(warnings):
    constant = dict(type="ConstantLR", factor=1e-3, by_epoch=False, end=400)
    values = rates([constant, dict(type="CosineAnnealingLR", by_epoch=False, begin=400)], 100)
    assert values[0] == LR / 1000
    assert values[3] < LR
    assert max(values) == values[4] == pytest.approx(LR)
    assert "(ConstantLR): its warm-up of 400 batches ends after the run of 100" in warnings[0]


@pytest.mark.parametrize("end", [101, 400])
def test_a_constant_rate_for_the_whole_run_stays(end, warnings):
    constant = dict(type="ConstantLR", factor=0.1, by_epoch=False, end=end)
    cosine = dict(type="CosineAnnealingLR", by_epoch=False)
    assert rates([constant], 100) == [LR / 10] * 100
    assert fit_schedule([constant, cosine], 100, EPOCH) == [constant, cosine]
    assert not warnings


@pytest.mark.parametrize("kind", ["LinearLR", "ConstantLR", "CosineAnnealingLR"])
def test_an_end_of_none_is_the_end_of_the_run(kind):
    scheduler = dict(type=kind, by_epoch=False)
    assert rates([{**scheduler, "begin": None, "end": None}], 100) == rates([scheduler], 100, fit=False)


@pytest.mark.parametrize("run", [4, 20, 39])
def test_a_twentieth_below_two_batches_leaves_the_warm_up_out(run, warnings):
    assert rates([linear(50)], run) == [LR] * run
    assert f"50 batches ends after the run of {run}; it is left out: a twentieth" in warnings[0]


def test_a_scheduler_after_a_warm_up_begins_where_the_warm_up_is_cut():
    """MMEngine's own way to write a schedule; by batches, and by epochs that are converted."""
    cosine = dict(type="CosineAnnealingLR", by_epoch=False, begin=1600)
    values = rates([linear(1600), cosine], 100)
    assert max(values) == pytest.approx(LR) == values[4]
    assert values[-1] < 0.01 * LR
    epochs = dict(by_epoch=True, convert_to_iter_based=True)
    again = rates([linear(30, **epochs), dict(type="CosineAnnealingLR", begin=30, **epochs)], 100)
    assert again == pytest.approx(values, rel=1e-9)
    steps = rates([linear(30, by_epoch=True), dict(type="StepLR", step_size=2, gamma=0.1, begin=30, end=40)], 100)
    assert steps[4] == pytest.approx(LR)
    assert steps[-1] < 0.1 * LR


def test_warm_ups_of_momentum_are_cut_too():
    warm_up = dict(type="LinearMomentum", start_factor=0.5, by_epoch=False, end=1000)
    values = rates([warm_up], 100, name="momentum")
    assert values[0] == 0.45
    assert values[4:] == pytest.approx([0.9] * 96)
    assert rates([{**warm_up, "end": 1}], 100, name="momentum") == [0.9] * 100


@pytest.mark.parametrize(
    "scheduler",
    [
        linear(1000, start_factor=1.0, end_factor=0.1),
        dict(type="CosineAnnealingLR", T_max=1000, by_epoch=False, end=1000),
        dict(type="MultiStepLR", milestones=[5], by_epoch=True),
        dict(type="PolyLR", by_epoch=False, end=1000),
        dict(type="LinearLR", start_factor=1e-3, by_epoch=False),  # to the end of the run
    ],
)
def test_other_schedulers_stay_as_they_are(scheduler):
    assert fit_schedule([scheduler], 100, EPOCH) == [scheduler]


def test_a_scheduler_that_begins_after_the_run_is_warned_of(warnings):
    cosine = dict(type="CosineAnnealingLR", by_epoch=False, begin=100)
    assert rates([cosine], 100) == [LR] * 100
    name = "param_scheduler[0] (CosineAnnealingLR)"
    assert warnings == [f"{name} begins after 100 batches, and the run has 100: it changes nothing"]
    assert rates([dict(type="LinearLR", begin=10, end=20)], 100) == [LR] * 100


@pytest.mark.parametrize(
    "scheduler",
    [
        dict(type="CosineAnnealingLR", eta_min=1e-6),
        dict(type="PolyLR", eta_min=1e-6),
        dict(type="OneCycleLR", eta_max=1e-3, total_steps=9),
    ],
)
def test_a_scheduler_that_gives_all_groups_one_rate_is_refused_where_they_differ(scheduler):
    check_ratios([scheduler], [LR, LR])
    kept = [dict(type="CosineAnnealingLR", eta_min_ratio=0.1), {**scheduler, "type": "PolyMomentum"}]
    check_ratios(kept, [LR, 2 * LR])
    with pytest.raises(ValueError, match=rf"param_scheduler\[1\] \({scheduler['type']}\): eta_m.* whose rates are"):
        check_ratios([dict(type="LinearLR"), scheduler], [LR, 2 * LR])


@pytest.mark.parametrize("warm_up", [linear(50, start_factor=0), dict(type="ConstantLR", factor=0.0, end=5)])
def test_a_warm_up_from_a_rate_of_0_is_refused(warm_up):
    with pytest.raises(ValueError, match=r"param_scheduler\[0\] .*factor=0 gives the first steps a rate of 0; choose"):
        fit_schedule([warm_up], 100, EPOCH)


def test_a_warm_up_that_ends_before_it_begins_is_refused():
    with pytest.raises(
        ValueError, match=r"param_scheduler\[0\] \(LinearLR\): a warm-up from batch 0 to batch -5: its end"
    ):
        fit_schedule([linear(-5)], 100, EPOCH)


@pytest.mark.parametrize(
    ("options", "first", "highest"),
    [
        (dict(warmup_iters=0), LR, 1),
        (dict(warmup_iters=1), LR, 1),
        (dict(warmup_iters=4), LR / 1000, 4),
        (dict(warmup_iters=1600, max_epochs=1), LR, 1),
        (dict(warmup_iters=1600, max_epochs=8), LR / 1000, 2),
        (dict(warmup_iters=1600, max_epochs=8, accumulative_counts=4), LR / 1000, 2),
    ],
)
def test_rates_of_a_run_with_a_warm_up_and_the_cosine(make_runner, tmp_path, options, first, highest):
    """With the cosine of the base schedule, which takes next to nothing at the beginning."""
    runner = make_runner(**options)
    runner.train()
    values = list(runner.message_hub.get_scalar("train/lr").data[0])
    assert values[0] == pytest.approx(first, rel=1e-12)
    assert len(values) == runner.max_iters
    assert values.index(max(values)) + 1 == highest
    assert max(values) > 0.7 * LR
    assert values[-1] < 0.1 * LR
    assert ("its warm-up of 1600 batches" in logs(tmp_path / "run")) == (options["warmup_iters"] == 1600)


def test_an_iteration_based_run_has_the_whole_cosine(make_runner):
    runner = make_runner("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=9)\n", warmup_iters=0)
    runner.train()
    values = list(runner.message_hub.get_scalar("train/lr").data[0])
    assert len(values) == 9
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.05 * LR


def test_a_resumed_run_continues_the_cut_schedule(make_runner, tmp_path):
    options = dict(warmup_iters=1600, max_epochs=8)
    whole = make_runner(**options, work_dir="whole")
    whole.train()
    cut = str(tmp_path / "whole" / "iter_45.pth")
    resumed = make_runner(**options, resume=True, load_from=cut)
    resumed.train()
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()


def test_without_the_param_scheduler_hook_the_rate_is_constant(make_runner):
    runner = make_runner("default_hooks['param_scheduler'] = None\n")
    runner.train()
    assert set(runner.message_hub.get_scalar("train/lr").data[0]) == {LR}
