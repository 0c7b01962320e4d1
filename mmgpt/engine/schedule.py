"""Schedules of learning rates: warm-ups that fit into the run, and schedules rebuilt for a run that resumes."""

import logging
import warnings
from collections.abc import Iterable, Sequence

from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import print_log
from mmengine.optim.scheduler import param_scheduler as scheduler_classes
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmgpt.registry import PARAM_SCHEDULERS

from .resume import HYPERPARAMETERS, Changes, change_lines

FRACTION = 20  # A warm-up that is longer than the run is cut to 1 / FRACTION of the run.
# MMEngine's schedulers that multiply a value by a factor until they end, each with the (name, default) of the argument
# for the first factor and of the one for the last factor.
WARM_UPS = {
    scheduler_classes.LinearParamScheduler: (("start_factor", 1 / 3), ("end_factor", 1.0)),
    scheduler_classes.ConstantParamScheduler: (("factor", 1 / 3), (None, 1.0)),
}
# Arguments of MMEngine's schedulers that set a rate instead of multiplying it, in all groups alike.
ABSOLUTE_RATES = ("eta_min", "eta_max", "min_value")


def check_ratios(schedulers: Iterable, rates: Iterable[float]) -> None:
    """Raises a ValueError for a scheduler that would not keep the ratios of the groups' learning rates.

    Args:
        schedulers: configs, or schedulers that are built already, which are not checked.
        rates: learning rates of the optimizer's groups.
    """
    rates = sorted(set(rates))
    for index, scheduler in enumerate(schedulers):
        if len(rates) == 1 or not isinstance(scheduler, dict):
            continue
        kind = str(scheduler.get("type"))
        of_momentum = "Momentum" in kind or scheduler.get("param_name", "lr") != "lr"
        for name in () if of_momentum else ABSOLUTE_RATES:
            if scheduler.get(name):
                raise ValueError(
                    f"param_scheduler[{index}] ({kind}): {name}={scheduler[name]!r} would be the rate of all parameter "
                    f"groups, whose rates are {', '.join(f'{rate:.4g}' for rate in rates)}; cosine schedules take "
                    "eta_min_ratio"
                )


def fit_schedule(schedulers: Sequence, run: int, epoch: int) -> list:
    """The schedulers of a config, changed so that each warm-up reaches its full rate within the run.

    A warm-up is a linear or constant scheduler of MMEngine whose last factor is above its first. It reaches the full
    rate at the last of the batches, or epochs, between its `begin` and `end`. With 0 or 1 of them it never would, and
    is left out. A warm-up that ends after the run is cut to a twentieth of the run, with a warning, and a scheduler
    that begins at its end begins at the new end. A constant scheduler that ends after the run is a warm-up only if
    another scheduler begins at its end; otherwise its rate is meant for the whole run. A scheduler that begins after
    the run causes a warning. All others, and those that are built already, stay as they are. An `end` of None is the
    end of the run.

    Args:
        schedulers: configs, or schedulers that are built already.
        run: length of the run in batches.
        epoch: length of an epoch in batches.

    Raises:
        ValueError: a warm-up has a factor of 0, by which MMEngine divides, or ends before it begins.
    """
    fitted, new_ends = [], {}
    begins = {int(_unit(item, epoch) * (item.get("begin") or 0)) for item in schedulers if isinstance(item, dict)}
    for index, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, dict):
            fitted.append(scheduler)
            continue
        scheduler = {key: value for key, value in scheduler.items() if value is not None or key not in ("begin", "end")}
        name = f"param_scheduler[{index}] ({scheduler.get('type')})"
        unit = _unit(scheduler, epoch)
        begin, end = (int(unit * scheduler.get(key, value)) for key, value in (("begin", 0), ("end", run / unit)))
        if begin in new_ends:
            begin = new_ends[begin]
            scheduler["begin"] = begin / unit if scheduler.get("convert_to_iter_based") else -(-begin // unit)
        if begin >= run:
            _warn(f"{name} begins after {begin} batches, and the run has {run}: it changes nothing")
            scheduler["end"] = max(scheduler.get("end", 0), scheduler["begin"] + 1)  # MMEngine refuses an empty range.
        elif factors := _warm_up_factors(scheduler, name):
            if end < begin:
                raise ValueError(
                    f"{name}: a warm-up from batch {begin} to batch {end}: its end (warmup_iters) must not be before "
                    "its begin; 0 means that there is no warm-up"
                )
            steps = end - begin if unit == 1 or scheduler.get("convert_to_iter_based") else (end - begin) // unit
            is_constant = factors[1][0] is None
            whole_run = is_constant and end not in begins
            if end > run and not whole_run:
                steps = min(max(1, run // FRACTION), run - begin)
                result = f"cut to {steps}" if steps > 1 else "left out"
                _warn(
                    f"{name}: its warm-up of {end - begin} batches ends after the run of {run}; it is {result}: a "
                    f"twentieth of the run is {run // FRACTION} (warmup_iters)"
                )
                new_ends[end] = begin + steps if steps > 1 else begin
                scheduler.update(by_epoch=False, begin=begin, end=begin + steps)
                scheduler.pop("convert_to_iter_based", None)
            if steps <= 1:
                (start, _), (_, value) = factors
                scheduler.update({start: value, "end": scheduler.get("begin", 0) + 1})
        fitted.append(scheduler)
    return fitted


def _unit(scheduler: dict, epoch: int) -> int:
    """The number of batches that a scheduler counts as one."""
    return epoch if scheduler.get("by_epoch", True) else 1


def _warm_up_factors(scheduler: dict, name: str) -> tuple | None:
    """The (argument, value) of the first and of the last factor of a warm-up; None for any other scheduler."""
    kind = scheduler.get("type")
    kind = PARAM_SCHEDULERS.get(kind) if isinstance(kind, str) else kind
    for warm_up, factors in WARM_UPS.items():
        if isinstance(kind, type) and issubclass(kind, warm_up):
            (start, low), (end, high) = ((key, scheduler.get(key, value)) for key, value in factors)
            if low == 0:
                raise ValueError(
                    f"{name}: {start}=0 gives the first steps a rate of 0; choose a small one, such as 1e-3"
                )
            return ((start, low), (end, high)) if low < high else None
    return None


def _warn(text: str) -> None:
    print_log(text, "current", logging.WARNING)


def rebuild_schedule(runner: Runner, checkpoint: dict, changes: Changes | None) -> None:
    """Replace the schedule and the hyperparameters in a checkpoint by those that the run's config has at its batch.

    A checkpoint whose settings are those of the run stays as it is. Otherwise the schedulers of `runner`, which are at
    their start, are stepped through all batches that are done, since MMEngine's compute each rate from the one before.
    Where they count epochs, this is also done for a checkpoint that was written at the last batch of an epoch, before
    the schedule's step at the end of the epoch.

    Raises:
        ValueError: a scheduler follows the results of validation, which the checkpoint does not have.
    """
    # 1. Return if there is nothing to rebuild.
    meta, schedulers = checkpoint["meta"], runner.param_schedulers or []
    batches, length = meta["iter"], len(runner.train_dataloader)
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    epoch_missing = (
        by_epoch and meta["epoch"] < batches // length and any(scheduler.by_epoch for scheduler in schedulers)
    )
    switched = len(schedulers) != len(checkpoint.get("param_schedulers") or [])
    if "settings" in meta and not changes.rebuilt and not epoch_missing and not switched:
        return
    if any(getattr(scheduler, "need_val_args", False) for scheduler in schedulers):
        reasons = ["default_hooks.param_scheduler was turned off"] if switched else []
        reasons += change_lines(changes.rebuilt) if changes is not None else []
        if reasons:
            raise ValueError(
                f"a schedule that follows validation cannot be rebuilt for other settings: {'; '.join(reasons)}"
            )
        return
    # 2. Step the schedulers to the batch of the checkpoint.
    hooks = [hook for hook in runner.hooks if isinstance(hook, ParamSchedulerHook)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `scheduler.step")
        for batch in range(batches):
            for hook in hooks:
                hook.after_train_iter(runner, batch)
                if by_epoch and (batch + 1) % length == 0:
                    hook.after_train_epoch(runner)
    checkpoint["param_schedulers"] = [scheduler.state_dict() for scheduler in schedulers]
    # 3. Replace the hyperparameters of the optimizer. Where it has several parameter groups, MMEngine also schedules
    # `base_param_settings`, a group without parameters.
    names = {*HYPERPARAMETERS, *(scheduler.param_name for scheduler in schedulers)}
    names |= {f"initial_{name}" for name in names}
    state = checkpoint["optimizer"]
    saved = [*state["param_groups"], *([state["base_param_settings"]] if "base_param_settings" in state else [])]
    saved_lr = saved[0]["lr"]
    for values, group in zip(saved, runner.optim_wrapper.param_groups, strict=False):
        values.update({name: value for name, value in group.items() if name in names})
    print_log(
        f"The learning rate after {batches} batches is {saved[0]['lr']:.4g} ({saved_lr:.4g} in the checkpoint).",
        "current",
    )
