"""Where a training run is: plain numbers, all that a run depends on beside its weights and its optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from core.training.run import Run


@dataclass
class State:
    """Where a run is."""

    step: int = 0
    """Optimiser steps taken."""
    epoch: int = 0
    """Epochs finished, evaluation included."""
    batch: int = 0
    """Batches of the current epoch trained on; all of them while its evaluation is still due."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sum of each loss over those batches."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record a finished epoch."""
    best: float | None = None
    """Best monitored value so far, with its epoch (from 1), step and second."""
    best_epoch: int | None = None
    best_step: int | None = None
    seconds_to_best: float | None = None
    stale: int = 0
    """Evaluations since the best one."""
    seconds: float = 0.0
    """Wall seconds spent, over all calls."""


@dataclass(frozen=True)
class Part:
    """An evaluation in the middle of an epoch, when minutes were up: what was learned since the last one is not lost.

    It is no part of the state, which is saved without it: a later call goes on as if it had not been.
    """

    record: dict[str, Any]
    """As of a whole epoch, for the batches so far."""
    value: float
    """Of the monitored metric."""
    improved: bool
    """Whether that is the best of the run."""


@runtime_checkable
class Keeper(Protocol):
    """What keeps a run's state; a run in memory has none."""

    def save(self, run: Run) -> None:
        """Save weights, optimiser and state."""

    def record(self, run: Run, improved: bool) -> None:
        """An epoch was finished."""
