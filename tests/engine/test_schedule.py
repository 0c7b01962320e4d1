"""The learning rate of every batch, as it is after MMEngine has built what `fit_schedule` makes of a schedule."""

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from mmgpt.engine.schedule import fit_schedule
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
def told(monkeypatch):
    """What is warned of."""
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
    found = rates([warm_up], 100)
    assert found == rates([warm_up], 100, fit=False)
    assert found[end - 2] < 0.99 * LR and found[end - 1] == pytest.approx(LR, rel=1e-12) and 0 < found[0]


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
def test_one_of_0_or_1_is_none(warm_up, end):
    assert rates([{**warm_up, "end": end}], 30) == [LR] * 30


def test_so_is_a_part_of_an_epoch_of_less_than_two_batches():
    assert rates([dict(type="LinearLR", start_factor=0.1, end=0.1, convert_to_iter_based=True)], 30) == [LR] * 30


@pytest.mark.parametrize(
    ("warm_up", "said"),
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
def test_one_that_is_longer_than_the_run_is_cut_to_a_twentieth(warm_up, said, told):
    found = rates([warm_up], 100)
    assert found[0] == LR / 1000 and found[3] < LR and found[4:] == pytest.approx([LR] * 96, rel=1e-12)
    assert f"param_scheduler[0] ({warm_up['type']}): its warm-up of {said}" in told[0]


def test_a_constant_warm_up_before_another_scheduler_is_cut(told):
    constant = dict(type="ConstantLR", factor=1e-3, by_epoch=False, end=400)
    found = rates([constant, dict(type="CosineAnnealingLR", by_epoch=False, begin=400)], 100)
    assert found[0] == LR / 1000 and found[3] < LR and max(found) == found[4] == pytest.approx(LR)
    assert "(ConstantLR): its warm-up of 400 batches ends after the run of 100" in told[0]


@pytest.mark.parametrize("end", [101, 400])
def test_a_constant_rate_for_the_whole_run_stays(end, told):
    constant = dict(type="ConstantLR", factor=0.1, by_epoch=False, end=end)
    cosine = dict(type="CosineAnnealingLR", by_epoch=False)
    assert rates([constant], 100) == [LR / 10] * 100
    assert fit_schedule([constant, cosine], 100, EPOCH) == [constant, cosine] and not told


@pytest.mark.parametrize("kind", ["LinearLR", "ConstantLR", "CosineAnnealingLR"])
def test_no_end_is_the_end_of_the_run(kind):
    scheduler = dict(type=kind, by_epoch=False)
    assert rates([{**scheduler, "begin": None, "end": None}], 100) == rates([scheduler], 100, fit=False)


@pytest.mark.parametrize("run", [4, 20, 39])
def test_a_twentieth_of_less_than_two_batches_is_none(run, told):
    assert rates([linear(50)], run) == [LR] * run
    assert f"50 batches ends after the run of {run}; it is left out: a twentieth" in told[0]


def test_what_begins_at_the_end_of_a_warm_up_begins_where_it_is_cut():
    """MMEngine's own way to write a schedule; by batches, and by epochs that are converted."""
    cosine = dict(type="CosineAnnealingLR", by_epoch=False, begin=1600)
    found = rates([linear(1600), cosine], 100)
    assert max(found) == pytest.approx(LR) == found[4] and found[-1] < 0.01 * LR
    epochs = dict(by_epoch=True, convert_to_iter_based=True)
    again = rates([linear(30, **epochs), dict(type="CosineAnnealingLR", begin=30, **epochs)], 100)
    assert again == pytest.approx(found, rel=1e-9)
    steps = rates([linear(30, by_epoch=True), dict(type="StepLR", step_size=2, gamma=0.1, begin=30, end=40)], 100)
    assert steps[4] == pytest.approx(LR) and steps[-1] < 0.1 * LR


def test_momentum_is_warmed_up_alike():
    warm_up = dict(type="LinearMomentum", start_factor=0.5, by_epoch=False, end=1000)
    found = rates([warm_up], 100, name="momentum")
    assert found[0] == 0.45 and found[4:] == pytest.approx([0.9] * 96)
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
def test_no_other_scheduler_changes(scheduler):
    assert fit_schedule([scheduler], 100, EPOCH) == [scheduler]


def test_what_begins_after_the_run_is_told_and_changes_nothing(told):
    cosine = dict(type="CosineAnnealingLR", by_epoch=False, begin=100)
    assert rates([cosine], 100) == [LR] * 100
    name = "param_scheduler[0] (CosineAnnealingLR)"
    assert told == [f"{name} begins after 100 batches, and the run has 100: it changes nothing"]
    assert rates([dict(type="LinearLR", begin=10, end=20)], 100) == [LR] * 100


@pytest.mark.parametrize("warm_up", [linear(50, start_factor=0), dict(type="ConstantLR", factor=0.0, end=5)])
def test_a_warm_up_from_nothing_is_refused(warm_up):
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
def test_rates_of_a_run_in_its_log(make_runner, tmp_path, options, first, highest):
    """With the cosine of the base schedule, which takes next to nothing at the beginning."""
    runner = make_runner(**options)
    runner.train()
    found = list(runner.message_hub.get_scalar("train/lr").data[0])
    assert found[0] == pytest.approx(first, rel=1e-12) and len(found) == runner.max_iters
    assert found.index(max(found)) + 1 == highest and max(found) > 0.7 * LR and found[-1] < 0.1 * LR
    assert ("its warm-up of 1600 batches" in logs(tmp_path / "run")) == (options["warmup_iters"] == 1600)


def test_a_run_of_batches_has_the_whole_cosine(make_runner):
    runner = make_runner("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=9)\n", warmup_iters=0)
    runner.train()
    found = list(runner.message_hub.get_scalar("train/lr").data[0])
    assert len(found) == 9 and found == sorted(found, reverse=True) and found[-1] < 0.05 * LR


def test_a_resumed_run_goes_on_with_the_schedule_that_was_cut(make_runner, tmp_path):
    options = dict(warmup_iters=1600, max_epochs=8)
    whole = make_runner(**options, work_dir="whole")
    whole.train()
    cut = str(tmp_path / "whole" / "iter_45.pth")
    resumed = make_runner(**options, resume=True, load_from=cut)
    resumed.train()
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()


def test_without_the_hook_that_takes_schedules_on_the_rate_is_that_of_the_config(make_runner):
    runner = make_runner("default_hooks['param_scheduler'] = None\n")
    runner.train()
    assert set(runner.message_hub.get_scalar("train/lr").data[0]) == {LR}
