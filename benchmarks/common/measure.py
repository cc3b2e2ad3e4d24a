"""Measuring: wall and processor seconds of a call, peak memory of this process, children with fixed threads."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

#: Every name under which a numerical library reads its thread count, at import: hence set for a subprocess.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A call's result with its seconds: wall, and processor seconds summed over threads."""

    result: T
    wall: float
    cpu: float


def timed(call: Callable[[], T]) -> Timed[T]:
    """Run ``call`` once and measure it."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Timed(result, time.perf_counter() - wall, time.process_time() - cpu)


def median_seconds(call: Callable[[], object], *, repeats: int, at_most: float) -> float:
    """Median wall seconds of up to ``repeats`` calls in about ``at_most`` seconds, after one that is not counted."""
    call()
    started, seconds = time.perf_counter(), list[float]()
    while len(seconds) < repeats and (not seconds or time.perf_counter() - started < at_most):
        seconds.append(timed(call).wall)
    return statistics.median(seconds)


def peak_memory_mib() -> float:
    """Peak resident memory of this process.

    ``VmHWM`` where there is one: ``ru_maxrss`` of a child process begins at its parent's peak on Linux.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child_environment(threads: int) -> dict[str, str]:
    """This process's environment with every thread count set to ``threads``."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
