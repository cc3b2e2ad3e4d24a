"""Several contenders timed in turns in one process, and the ratio of two of them with its interval.

A B C, B C A, C A B, …: a drift of the machine's speed meets all alike, and none is always first. Ratios are taken
round by round, so that a slow spell that covers a round cancels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.common.measure import timed

#: Before the rounds, every contender is called this often, or once if all of them together take that many seconds.
WARM_UP, WARM_UP_SECONDS = 2, 2.0
#: Level of the interval of a median, where there are rounds enough for it: six or more.
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds' ratios with its interval; ``coverage`` is below the level only where rounds are few."""

    value: float
    low: float
    high: float
    coverage: float


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float,
    least: int = 3,
    clock: Literal["wall", "cpu"] = "wall",
) -> dict[str, list[float]]:
    """Seconds of every call, round by round: ``rounds`` of them, or ``least`` once ``seconds`` have gone.

    Processor seconds (``clock="cpu"``) are summed over threads, and leave out what other processes take.
    """
    names = list(calls)
    started = time.perf_counter()
    for turn in range(WARM_UP):
        if turn == 0 or time.perf_counter() - started < WARM_UP_SECONDS:
            for name in names:
                calls[name]()
    found: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(rounds):
        if turn >= least and time.perf_counter() - started >= seconds:
            break
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            once = timed(calls[name])
            found[name].append(once.cpu if clock == "cpu" else once.wall)
    return found


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Median of ``numerator / denominator`` over paired rounds, between order statistics.

    The interval is the narrowest pair of order statistics that lie alike from both ends and cover the median with
    probability :data:`LEVEL` whatever the distribution; smallest and largest where there are too few.

    >>> ratio([2.0, 3.0, 8.0], [1.0, 1.0, 2.0])
    Ratio(value=3.0, low=2.0, high=4.0, coverage=0.75)
    """
    ratios = np.sort(np.array(numerator) / np.array(denominator))
    count = len(ratios)
    inside = [depth for depth in range((count + 1) // 2) if _coverage(count, depth) >= LEVEL]
    depth = max(inside, default=0)
    low, high = float(ratios[depth]), float(ratios[count - 1 - depth])
    return Ratio(float(np.median(ratios)), low, high, _coverage(count, depth))


def _coverage(count: int, depth: int) -> float:
    """Probability that the median lies between the order statistics ``depth`` places from both ends."""
    outside = float(sum(math.comb(count, below) for below in range(depth + 1)))
    return 1 - outside * 2.0 ** (1 - count)
