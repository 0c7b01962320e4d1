"""Warm-ups that fit the run: the schedule of a config, changed where its rate would never rise."""

import logging
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.optim.scheduler import param_scheduler as scheduler_classes

from mmgpt.registry import PARAM_SCHEDULERS

SHARE = 20  # A warm-up that is longer than the run is cut to 1 / SHARE of it.
# MMEngine's schedulers that multiply a value by a factor until they end, each with the (name, default) of the argument
# for the factor that it begins with, and of the one for the factor that it comes to.
WARM_UPS = {
    scheduler_classes.LinearParamScheduler: (("start_factor", 1 / 3), ("end_factor", 1.0)),
    scheduler_classes.ConstantParamScheduler: (("factor", 1 / 3), (None, 1.0)),
}


def fit_schedule(schedulers: Sequence, run: int, epoch: int) -> list:
    """The schedulers of a config, as many, for a run of so many batches in epochs of so many.

    MMEngine's warm-ups (linear and constant schedulers that come to a higher value than they begin with) come to it at
    the last of the batches, or epochs, between their `begin` and `end`. One of 0 or 1 never would: it becomes none. One
    that ends after the run is cut to a twentieth of the run, with a warning, and what was to begin at its end begins at
    the new one. A constant scheduler that ends after the run is one of these only if another begins at its end; else it
    is meant for the whole run. A scheduler that begins after the run is warned of. All others stay as they are, and so
    do those that are built already. An `end` of None is the end of the run.

    Raises:
        ValueError: a warm-up from a factor of 0, by which MMEngine divides.
    """
    fitted, moved = [], {}
    for place, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, dict):
            fitted.append(scheduler)
            continue
        scheduler = {key: value for key, value in scheduler.items() if value is not None or key not in ("begin", "end")}
        name = f"param_scheduler[{place}] ({scheduler.get('type')})"
        unit = _unit(scheduler, epoch)
        begin, end = (int(unit * scheduler.get(key, value)) for key, value in (("begin", 0), ("end", run / unit)))
        if begin in moved:
            begin = moved[begin]
            scheduler["begin"] = begin / unit if scheduler.get("convert_to_iter_based") else -(-begin // unit)
        if begin >= run:
            _warn(f"{name} begins after {begin} batches, and the run has {run}: it changes nothing")
            scheduler["end"] = max(scheduler.get("end", 0), scheduler["begin"] + 1)  # what MMEngine builds
        elif factors := _warm_up_factors(scheduler, name):
            steps = end - begin if unit == 1 or scheduler.get("convert_to_iter_based") else (end - begin) // unit
            whole_run = factors[1][0] is None and not any(_begin(each, epoch) == end for each in schedulers)
            if end > run and not whole_run:
                steps = min(max(1, run // SHARE), run - begin)
                become = f"cut to {steps}" if steps > 1 else "left out"
                _warn(
                    f"{name}: its warm-up of {end - begin} batches ends after the run of {run}; it is {become}: a "
                    f"twentieth of the run is {run // SHARE} (warmup_iters)"
                )
                moved[end] = begin + steps if steps > 1 else begin
                scheduler.update(by_epoch=False, begin=begin, end=begin + steps)
                scheduler.pop("convert_to_iter_based", None)
            if steps <= 1:
                (start, _), (_, value) = factors
                scheduler.update({start: value, "end": scheduler.get("begin", 0) + 1})
        fitted.append(scheduler)
    return fitted


def _unit(scheduler: dict, epoch: int) -> int:
    return epoch if scheduler.get("by_epoch", True) else 1


def _begin(scheduler: object, epoch: int) -> int | None:
    """The batch at which a scheduler begins; None if it is built already."""
    return int(_unit(scheduler, epoch) * (scheduler.get("begin") or 0)) if isinstance(scheduler, dict) else None


def _warm_up_factors(scheduler: dict, name: str) -> tuple | None:
    """The (name, value) of the factors that a warm-up begins with and comes to; None for any other scheduler."""
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
