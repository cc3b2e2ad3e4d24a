"""The verb ``train`` of every application: a run directory, the claim on its data, training, the model, the outcome."""

from __future__ import annotations

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
from core.training import Progress
from core.training.progress import ProgressName

C = TypeVar("C", bound=Any)
D = TypeVar("D")
M = TypeVar("M", bound=Any)


def train(application: Application[C, D, M], arguments: type[TrainArguments], argv: Sequence[str]) -> None:
    """The verb on a command line.

    Args:
        application: what is trained.
        arguments: the verb's own, which inherit from the application's ``source`` too.
        argv: words after ``train``.
    """
    prog = f"manyformer {application.name} train"
    parsed = parse_config(application.config, application.presets, argv, arguments=arguments, prog=prog)
    line, config = parsed.arguments, parsed.config
    data = application.load(line, config)
    done = trained(application, line, config, data, line.out, minutes=line.max_minutes, progress=line.progress)
    if done is None:
        say(f"{line.out}: this run is finished; choose another folder to train again")
        return
    best = RunDirectory(line.out).best
    after = f"next: manyformer {application.name} evaluate {line.out} --report {line.out / 'report'}"
    say("\n".join([*done.summary, f"the model is in {best}; {after}"]))


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

    Args:
        application: what is trained.
        source: the arguments that ``data`` were loaded with.
        config: every setting; a run that is there must have the same.
        data: to learn from; a run that is there must have claimed the same.
        out: folder of the run, written by one process at a time.
        minutes: wall minutes of this call, no setting of the run: a resumed run may have more.
        progress: as for :func:`core.training.fit`.

    Returns:
        what training gave; None where nothing was left to do.

    Raises:
        InputError: the folder holds another run, or the data cannot be learned from.
        Interrupted: stopped by a signal, after saving.
    """
    with only_writer(out):
        run = RunDirectory.create(out, config, task=application.name)
        with discarded_if_refused(run):
            claim_data(run, application.facts(source, data))
            if is_complete(run):
                return None
            limited = config if minutes is None else with_fit(config, max_minutes=minutes)
            done = application.fit(limited, data, directory=run.last, progress=progress)
        done.model.config = config  # without the limit of this call
        done.model.save(run.best)
        write_outcome(run, done.facts, done.history, complete=done.complete)
    return done
