"""Train a task: the one entry of this room."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch

from core.errors import InputError
from core.training.checkpoint import Checkpoints
from core.training.group import current, lost_is_told
from core.training.interrupt import Interrupted, noted
from core.training.loader import Loader
from core.training.progress import Progress, ProgressName, choose
from core.training.randomness import preserved
from core.training.run import Run
from core.training.settings import FitResult, FitSettings
from core.training.task import Task

ECHO_SECONDS = 2.0
"""Of several processes that train together each may be told twice of one signal, within this time."""


def fit(
    task: Task,
    *,
    train: Loader,
    valid: Loader | None = None,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    settings: FitSettings,
    directory: Path | None = None,
    progress: ProgressName | Progress = "auto",
) -> FitResult:
    """Train ``task.model`` and leave it with its best weights, in evaluation mode.

    Calls from several threads follow one another, so that each gives what it would alone. Within
    :func:`core.training.together` the processes of the group train the model together, and all get the result.

    Args:
        task: the model with its losses and metrics.
        train: training batches.
        valid: validation batches, evaluated after every epoch, and in the middle of one where the minutes end there;
            without them the last weights are kept.
        optimizer: of the model's parameters; its learning rates are the peaks that the schedule multiplies.
        schedule: optimiser steps taken -> factor on the learning rates.
        settings: how long, what to watch, how.
        directory: where the run is saved, and resumed from; None keeps it in memory.
        progress: ``"auto"``, ``"off"``, ``"plain"``, ``"bar"``, or an object of one's own.

    Raises:
        InputError: settings that do not fit together, a directory that holds another run or cannot be written.
        Diverged: an InputError too; a loss, a gradient or a weight is not finite.
        Interrupted: SIGTERM or Ctrl-C arrived; the state is saved. (Without a directory the signal does what it did
            before, once the step is finished: KeyboardInterrupt for Ctrl-C.)
    """
    if settings.patience is not None and valid is None:
        raise InputError("early stopping needs validation batches", where="patience")
    group = current()
    shown = choose(progress if group.rank == 0 else "off")
    with preserved(), noted(ECHO_SECONDS if group.size > 1 else 0.0) as signals, lost_is_told(group):
        started = time.monotonic()  # not before: another thread may have been training until now
        run = Run(task, train, valid, optimizer, schedule, settings, signals, shown, group, started)
        checkpoints = None if directory is None else Checkpoints(Path(directory), group)
        if checkpoints is not None:
            checkpoints.resume(run)
            _same_place(run)
        if not run.over():
            if checkpoints is None:
                _train(run)
            else:
                with checkpoints.saved_or_nothing():
                    checkpoints.begin(run)
                    _train(run)
        run.finish()
        if checkpoints is not None and run.part is not None:
            checkpoints.conclude(run, run.part)
        run.exchange.totals()  # the last one: all end alike
        arrived = run.exchange.signal
    if arrived is not None:
        if directory is None:
            # Nothing is kept that could be resumed: the signal takes its ordinary course.
            signal.raise_signal(arrived)
        raise Interrupted(directory)
    return _result(run)


def _same_place(run: Run) -> None:
    """Refuse a group of which not all processes read the same state."""
    place = [run.state.step, run.state.epoch, run.state.batch]
    total = run.group.total([*place, *(number * number for number in place)])
    size = run.group.size
    # Numbers are equal where the mean of their squares is the square of their mean.
    if any(size * squares != sums * sums for sums, squares in zip(total[:3], total[3:], strict=True)):
        mend = "all of them need the same folder: give --out on a disk that they share"
        raise InputError("the processes of this training see different states of the run", mend=mend)


def _train(run: Run) -> None:
    from core.training.adapter import drive  # Lightning takes seconds to import

    settings = run.settings
    max_seconds = None if settings.max_minutes is None else 60 * settings.max_minutes
    total = settings.max_epochs * len(run.train)
    run.progress.start(step=run.state.step, total=total, max_seconds=max_seconds)
    summary = "failed"
    try:
        drive(run)
        run.tick()
        run.save()
        summary = f"stopped by {run.stopped_by}" if run.stopped_by else "interrupted"
    finally:
        run.restore_rates()
        run.progress.close(f"{summary} at step {run.state.step}")


def _result(run: Run) -> FitResult:
    state, part = run.state, run.part
    assert run.stopped_by is not None
    result = FitResult(
        history=state.history,
        best=state.best,
        best_epoch=state.best_epoch,
        stopped_by=run.stopped_by,
        steps=state.step,
        seconds=state.seconds,
        seconds_to_best=state.seconds_to_best,
        pace=run.pace(),
    )
    if part is None:
        return result
    result = dataclasses.replace(result, history=[*state.history, part.record])
    if not part.improved:
        return result
    epoch, seconds = part.record["epoch"], part.record["seconds"]
    return dataclasses.replace(result, best=part.value, best_epoch=epoch, seconds_to_best=seconds)
