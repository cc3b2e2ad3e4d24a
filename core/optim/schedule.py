r"""Learning-rate schedules: pure functions of the step.

A schedule maps the number of optimiser steps already taken to a factor on every group's learning rate. Nothing is kept
between calls, so that a resumed run needs no scheduler state.

``warmup_cosine``: linear from ``1/warmup`` to 1 over the first ``warmup`` steps, then half a cosine down to ``floor``
at step ``total`` (Loshchilov and Hutter, arXiv 1608.03983, without restarts)::

    factor = floor + (1 - floor) * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2

``hold_anneal``: linear from 0 to 1 at step ``warmup``, held for ``hold`` steps, then a power down to ``floor`` (the
extended peak of Squeezeformer, arXiv 2206.00888; ``power=0.5, hold=0`` is that of arXiv 1706.03762)::

    factor = max(floor, (warmup / (step - hold)) ** power)        after step warmup + hold

``warmup_times_linear``: a line from 1 to ``floor`` over the whole run, multiplied by another that rises from 1e-6 to 1
over the first ``warmup`` steps (the polynomial schedule of power 1 of mmsegmentation 0.16, as DAFormer, arXiv
2111.14887, has it); its peak is below 1::

    factor = (1 - (1 - floor) * step / total) * (1 - (1 - step / warmup) * (1 - 1e-6))

Any of them may begin anew once (a warm restart, arXiv 1608.03983), for runs whose last part learns something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from core.errors import InputError, nearest

Schedule = Callable[[int], float]

FIRST = 1e-6
"""Where the rising line of ``warmup_times_linear`` begins."""


def constant(step: int) -> float:
    """1 at every step.

    >>> constant(10**6)
    1.0
    """
    return 1.0


def warmup_cosine(step: int, *, warmup: int, total: int, floor: float = 0.0) -> float:
    """Linear warm-up, then a cosine to ``floor``, where it stays after step ``total``.

    Args:
        step: optimiser steps taken so far, from 0.
        warmup: steps of the warm-up; 0 for none.
        total: steps of the whole run.
        floor: the factor at the end, between 0 and 1.

    >>> [round(warmup_cosine(step, warmup=2, total=6, floor=0.1), 3) for step in range(8)]
    [0.5, 1.0, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    if step < warmup:
        return (step + 1) / warmup
    if step >= total:
        return floor
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def hold_anneal(step: int, *, warmup: int, hold: int, power: float = 1.0, floor: float = 0.0) -> float:
    """Linear warm-up, a peak that is held, then a power of the step down to ``floor``; continuous.

    Args:
        step: where on the curve; it is 0 at step 0, so that the first optimiser step wants 1.
        warmup: steps of the warm-up, at least 1: they also set how slowly the factor falls.
        hold: steps at the peak.
        power: of the fall.
        floor: the least factor after the peak, between 0 and 1.

    >>> [round(hold_anneal(step, warmup=2, hold=3, floor=0.3), 3) for step in range(11)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.667, 0.5, 0.4, 0.333, 0.3]
    """
    if step < warmup:
        return step / warmup
    if step < warmup + hold:
        return 1.0
    return max(floor, float((warmup / (step - hold)) ** power))


def warmup_times_linear(step: int, *, warmup: int, total: int, floor: float = 0.0) -> float:
    """A line down to ``floor`` at step ``total``, where it stays, times a line up over the first ``warmup`` steps.

    Args:
        step: optimiser steps taken so far, from 0.
        warmup: steps of the warm-up; 0 for none.
        total: steps of the whole run.
        floor: the factor at the end, between 0 and 1.

    >>> [round(warmup_times_linear(step, warmup=2, total=8), 3) for step in range(10)]
    [0.0, 0.438, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    """
    falling = 1 - (1 - floor) * min(step, total) / total
    return falling * (1 - (1 - step / warmup) * (1 - FIRST)) if step < warmup else falling


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Which schedule, in shares of a run whose length is known later."""

    name: Literal["constant", "hold_anneal", "warmup_cosine", "warmup_times_linear"] = "warmup_cosine"
    """How the learning rate changes over the run."""
    warmup: float = 0.05
    """Share of the steps spent warming up (all but constant)."""
    hold: float = 0.3
    """Share of the steps at the peak (hold_anneal)."""
    power: float = 1.0
    """How fast the learning rate falls: with this power of the step (hold_anneal)."""
    floor: float = 0.0
    """Least factor on the learning rate after the peak (warmup_cosine and warmup_times_linear, which end there;
    hold_anneal)."""
    restart: float = 0.0
    """Share of the steps after which the schedule begins anew, over the steps that are left; 0: never."""
    restart_factor: float = 1.0
    """On the learning rate from there."""

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise InputError(f"no schedule {self.name!r}", where="name", mend=nearest(self.name, list(SCHEDULES)))
        for field in ("warmup", "hold", "floor"):
            if not 0 <= getattr(self, field) <= 1:
                raise InputError(f"{getattr(self, field)} is not a share between 0 and 1", where=field)
        for field in ("power", "restart_factor"):
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(f"{getattr(self, field)} is not a positive number", where=field)
        if not 0 <= self.restart < 1:
            raise InputError(f"{self.restart} is not a share of the run in [0, 1)", where="restart")
        if self.name == "hold_anneal":
            if self.warmup == 0:
                raise InputError("hold_anneal falls in proportion to its warm-up, which is 0", where="warmup")
            if self.warmup + self.hold > 1:
                raise InputError(f"{self.warmup} of warm-up and {self.hold} are more than the run", where="hold")

    def build(self, total: int) -> Schedule:
        """The schedule of a run of ``total`` steps.

        >>> ScheduleConfig(name="warmup_cosine", warmup=0.1).build(100)(9)
        1.0
        >>> again = ScheduleConfig(name="warmup_cosine", warmup=0, restart=0.5, restart_factor=0.5).build(4)
        >>> [round(again(step), 3) for step in range(4)]
        [1.0, 0.5, 0.5, 0.25]
        """
        build, first = SCHEDULES[self.name], math.ceil(self.restart * total)
        if not 0 < first < total:
            return build(self, total)
        before, after = build(self, first), build(self, total - first)

        def factor(step: int) -> float:
            return before(step) if step < first else self.restart_factor * after(step - first)

        return factor


def _build_constant(config: ScheduleConfig, total: int) -> Schedule:
    return constant


def _build_warmup_cosine(config: ScheduleConfig, total: int) -> Schedule:
    return partial(warmup_cosine, warmup=round(config.warmup * total), total=total, floor=config.floor)


def _build_hold_anneal(config: ScheduleConfig, total: int) -> Schedule:
    warmup = max(1, round(config.warmup * total))
    hold = round(config.hold * total)

    def factor(step: int) -> float:
        # As in warmup_cosine the first step of a run is already worth something.
        return hold_anneal(step + 1, warmup=warmup, hold=hold, power=config.power, floor=config.floor)

    return factor


def _build_warmup_times_linear(config: ScheduleConfig, total: int) -> Schedule:
    return partial(warmup_times_linear, warmup=round(config.warmup * total), total=total, floor=config.floor)


SCHEDULES: dict[str, Callable[[ScheduleConfig, int], Schedule]] = {
    "constant": _build_constant,
    "hold_anneal": _build_hold_anneal,
    "warmup_cosine": _build_warmup_cosine,
    "warmup_times_linear": _build_warmup_times_linear,
}
