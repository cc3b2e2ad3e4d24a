"""The verb ``train`` of every application: a run directory, the claim on its data, training, the model, the outcome.

Of several processes (``--devices``, or ``torchrun``) all read the data and train; the first alone decides whether there
is anything to train, writes the run, and speaks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from core.application.base import Application, Trained, with_fit
from core.command import (
    RunDirectory,
    TrainArguments,
    claim_data,
    discarded_if_refused,
    is_complete,
    only_writer,
    parse_config,
    say,
    write_outcome,
)
from core.command.launch import launch, own_command
from core.errors import InputError
from core.training import Progress, together
from core.training.group import check_gpus, current, launched
from core.training.progress import ProgressName

C = TypeVar("C", bound=Any)
D = TypeVar("D")
M = TypeVar("M", bound=Any)


def train(application: Application[C, D, M], arguments: type[TrainArguments], argv: Sequence[str]) -> int:
    """The verb on a command line; returns the exit status.

    Args:
        application: what is trained.
        arguments: the verb's own, which inherit from the application's ``source`` too.
        argv: words after ``train``.
    """
    prog = f"manyformer {application.name} train"
    parsed = parse_config(application.config, application.presets, argv, arguments=arguments, prog=prog)
    line, config = parsed.arguments, parsed.config
    processes = _processes(line)
    if processes > 1 and launched() is None:
        check_gpus(processes)
        return launch(own_command(_module(arguments), argv), processes, last=RunDirectory(line.out).last)
    with together(line.strategy) as group:
        with group.first_alone():  # who may have to make the data
            data = application.load(line, config)
        if line.budget_minutes is not None:
            config = _budgeted(application, config, data, line.out, line.budget_minutes)
        done = trained(application, line, config, data, line.out, minutes=line.max_minutes, progress=line.progress)
        if group.rank == 0:
            say(_summary(application, line.out, done))
    return 0


def _processes(line: TrainArguments) -> int:
    """How many train together.

    Raises:
        InputError: a launcher has started another number, or there is nothing to divide.
    """
    there = launched()
    if there is not None and line.devices not in (None, there):
        mend = "leave --devices out under torchrun"
        raise InputError(f"{line.devices} is not the number of processes, {there}", where="--devices", mend=mend)
    count = there or line.devices or 1
    if line.strategy == "fsdp" and count == 1:
        raise InputError("fsdp divides a model among processes", where="--strategy", mend="give --devices 2 or more")
    return count


def _module(arguments: type[Any]) -> str:
    """The verb's module, also where it is the program."""
    name = arguments.__module__
    spec = getattr(sys.modules[name], "__spec__", None)
    return name if spec is None else str(spec.name)


def _budgeted(application: Application[C, D, M], config: C, data: D, out: Path, minutes: float) -> C:
    """The config with the epochs of the run that is there, or, at its beginning, with as many as the minutes allow."""
    run, group = RunDirectory(out), current()
    (known,) = group.first([float(run.config_file.is_file())])
    if known:
        held = RunDirectory.open(out, task=application.name).config(type(config))
        return with_fit(config, max_epochs=held.fit.max_epochs, max_minutes=None)
    measured = application.within(config, data, minutes)
    (epochs,) = group.first([measured.fit.max_epochs])  # every process has a clock of its own
    return with_fit(measured, max_epochs=int(epochs))


def _summary(application: Application[C, D, M], out: Path, done: Trained[M] | None) -> str:
    if done is None:
        return f"{out}: this run is finished; choose another folder to train again"
    after = f"next: manyformer {application.name} evaluate {out} --report {out / 'report'}"
    return "\n".join([*done.summary, f"the model is in {RunDirectory(out).best}; {after}"])


def trained(
    application: Application[C, D, M],
    source: Any,
    config: C,
    data: D,
    out: Path,
    *,
    minutes: float | None = None,
    progress: ProgressName | Progress = "off",
) -> Trained[M] | None:
    """Begin the run in the folder ``out``, or go on with it, and leave its model and its outcome there.

    Within :func:`core.training.together` the processes train together, and the first writes.

    Args:
        application: what is trained.
        source: the arguments that ``data`` were loaded with.
        config: every setting; a run that is there must have the same.
        data: to learn from; a run that is there must have claimed the same.
        out: folder of the run, written by one process at a time.
        minutes: wall minutes of this call, no setting of the run: a resumed run may have more.
        progress: as for :func:`core.training.fit`.

    Returns:
        what training gave; None where nothing was left to do, and in other processes than the first.

    Raises:
        InputError: the folder holds another run, or the data cannot be learned from.
        Interrupted: stopped by a signal, after saving.
    """
    group = current()
    limited = config if minutes is None else with_fit(config, max_minutes=minutes)
    if group.rank > 0:
        if not any(group.first([0.0])):
            application.fit(limited, data, directory=RunDirectory(out).last)
        return None
    with only_writer(out):
        run = RunDirectory.create(out, config, task=application.name)
        with discarded_if_refused(run):
            claim_data(run, application.facts(source, data))
            if any(group.first([float(is_complete(run))])):
                return None
            done = application.fit(limited, data, directory=run.last, progress=progress)
        done.model.config = config  # without the limit of this call
        done.model.save(run.best)
        write_outcome(run, done.facts, done.history, complete=done.complete)
    return done
