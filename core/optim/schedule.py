r"""Learning-rate schedules: pure functions of the step.

A schedule maps the number of optimiser steps already taken to a factor on every group's learning rate. Nothing is kept
between calls, so that a resumed run needs no scheduler state.

``warmup_cosine``: linear from ``1/warmup`` to 1 over the first ``warmup`` steps, then half a cosine down to ``floor``
at step ``total`` (Loshchilov and Hutter, arXiv 1608.03983, without restarts)::

    factor = floor + (1 - floor) * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from core.errors import InputError, nearest

Schedule = Callable[[int], float]


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


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Which schedule, in shares of a run whose length is known later."""

    name: Literal["constant", "warmup_cosine"] = "warmup_cosine"
    """How the learning rate changes over the run."""
    warmup: float = 0.05
    """Share of the steps spent warming up (warmup_cosine)."""
    floor: float = 0.0
    """Factor on the learning rate at the end of the run (warmup_cosine)."""

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise InputError(f"no schedule {self.name!r}", where="name", mend=nearest(self.name, list(SCHEDULES)))
        for field in ("warmup", "floor"):
            if not 0 <= getattr(self, field) <= 1:
                raise InputError(f"{getattr(self, field)} is not a share between 0 and 1", where=field)

    def build(self, total: int) -> Schedule:
        """The schedule of a run of ``total`` steps.

        >>> ScheduleConfig(name="warmup_cosine", warmup=0.1).build(100)(9)
        1.0
        """
        return SCHEDULES[self.name](self, total)


def _build_constant(config: ScheduleConfig, total: int) -> Schedule:
    return constant


def _build_warmup_cosine(config: ScheduleConfig, total: int) -> Schedule:
    return partial(warmup_cosine, warmup=round(config.warmup * total), total=total, floor=config.floor)


SCHEDULES: dict[str, Callable[[ScheduleConfig, int], Schedule]] = {
    "constant": _build_constant,
    "warmup_cosine": _build_warmup_cosine,
}
