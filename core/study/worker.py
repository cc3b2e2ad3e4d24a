"""One run of a study, in a process of its own: train, score, write down what it came to."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.application import Application, Trained, trained
from core.command import RunDirectory
from core.errors import InputError
from core.study.journal import Journal, ending, read_events
from core.study.records import Arm
from core.study.store import Settled, StudyDirectory, write_scored, write_settled
from core.training import Diverged, Interrupted, Progress
from core.training.progress import ProgressName


class Pruned(Exception):
    """A trial that is worse, so far, than others were at this point."""


INTERRUPTED = 130
"""Exit status of a process that was told to stop, and has saved."""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What all processes of a study are told.

    Attributes:
        application: what is trained.
        source: the application's arguments that say which data.
        digests: what these data must be, by split.
        split: to score.
        study: the folder.
        threads: of this process.
        commit: of the program.
        cores: to stay on; None for any.
        retry_failed: try again what failed before.
        keep: leave the directory of a finished run.
    """

    application: Application[Any, Any, Any]
    source: Any
    digests: Mapping[str, Any]
    split: str
    study: Path
    threads: int
    commit: str | None = None
    cores: tuple[int, ...] | None = None
    retry_failed: bool = False
    keep: bool = False

    @property
    def directory(self) -> StudyDirectory:
        """The folder's paths."""
        return StudyDirectory(self.study)

    def prepare(self) -> None:
        """Take the threads and cores."""
        if self.cores is not None:
            os.sched_setaffinity(0, self.cores)
        torch.set_num_threads(self.threads)

    def load(self, config: Any, share: float = 1.0) -> Any:
        """The data with a share of the training split; as far as they are scored they must be those of the plan.

        Raises:
            InputError: anything wrong with them.
        """
        data = self.application.load(self.source, config)
        digests = self.application.facts(self.source, data)["digest"]
        if digests.get(self.split) != self.digests.get(self.split):
            what = f"the split {self.split!r} is another one in this run, by its settings or since the study began"
            raise InputError(what, where=str(self.source.data), mend="arms must be scored on the same data")
        return data if share == 1 else self.application.part(data, share)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run.

    Attributes:
        brief: what it shares with the others.
        key: of its arm.
        seed: its own.
        config: with that seed.
        share: of the training split.
        launched: ``time.monotonic()`` when its process was asked for.
    """

    brief: Brief
    key: str
    seed: int
    config: Any
    share: float = 1.0
    launched: float = 0.0

    @property
    def log(self) -> Path:
        """Where it is written down."""
        return self.brief.directory.log(self.key, self.seed)

    @property
    def work(self) -> Path:
        """Its run directory."""
        return self.brief.directory.work(self.key, self.seed)

    def perform(self) -> int:
        """Do the run, or what is left of it; returns the exit status of the process."""
        return recorded(self.log, self.work, self._run, self.brief)

    def _run(self, journal: Journal) -> dict[str, Any]:
        brief, application = self.brief, self.brief.application
        brief.prepare()
        data = brief.load(self.config, self.share)
        begun = time.monotonic()
        done = train_in(application, brief.source, self.config, data, self.work)
        training = time.monotonic() - begun
        model = application.open(RunDirectory.open(self.work, task=application.name))
        begun = time.monotonic()
        scored = application.score(model, data, brief.split)
        scoring = time.monotonic() - begun
        facts = facts_of(done)
        resumed = sum(event["event"] == "started" for event in journal.events()) > 1
        working = min(training, facts["seconds"]) + scoring
        return {
            **facts,
            "metrics": {name: measure.value for name, measure in scored.measures.items()},
            "scores": write_scored(brief.directory.scores(self.key, self.seed), scored),
            "peak_mib": peak_mib(),
            "scoring_seconds": scoring,
            # What the queue costs: everything but training and scoring. Of a resumed run nobody can say.
            "overhead_seconds": None if resumed else time.monotonic() - self.launched - working,
            "working_seconds": working,
            "time": time.time(),
            "commit": brief.commit,
        }

    def fail(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write down an end that the run's own process did not live to."""
        with Journal.held(self.log) as journal:
            if ending(journal.events(), retry_failed=self.brief.retry_failed) is None:
                journal.append(event, facts)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How many epochs an arm can train within a budget.

    Attributes:
        brief: what it shares with the runs.
        arm, key: which.
        config: of the arm; its seed is that of the first run.
        share: of the training split.
        minutes: of the budget.
        parameters: of all networks of the arm.
        jobs: its runs, which fail where the arm cannot be measured.
    """

    brief: Brief
    arm: Arm
    key: str
    config: Any
    share: float
    minutes: float
    parameters: int
    jobs: tuple[Job, ...]

    def perform(self) -> int:
        """Measure, and write the arm's config; returns the exit status of the process."""
        self.brief.prepare()
        try:
            data = self.brief.load(self.config, self.share)
            config = self.brief.application.within(self.config, data, self.minutes)
        except Interrupted:
            return INTERRUPTED
        except Exception as error:
            self.fail(*failure(error))
            return 0
        settled = Settled(config=without_patience(config), parameters=self.parameters)
        write_settled(self.brief.directory.arm(self.key), self.arm, settled)
        return 0

    def fail(self, event: str, facts: Mapping[str, Any]) -> None:
        """The same end for all runs."""
        for job in self.jobs:
            job.fail(event, {**facts, "reason": f"while its epochs were measured: {facts['reason']}"})


def without_patience(config: Any) -> Any:
    """The config of runs that use up their budget."""
    return dataclasses.replace(config, fit=dataclasses.replace(config.fit, patience=None))


def has_ended(brief: Brief, key: str, seed: int) -> bool:
    """Whether nothing is to be done for a run any more."""
    return ending(read_events(brief.directory.log(key, seed)), retry_failed=brief.retry_failed) is not None


def recorded(log: Path, work: Path, function: Callable[[Journal], Mapping[str, Any]], brief: Brief) -> int:
    """Does a run whose log this is, unless it has ended, and writes down its end; returns an exit status.

    Args:
        log: of the run, held meanwhile.
        work: its run directory, which goes when it has finished.
        function: does it, and gives what it came to.
        brief: what else to know.
    """
    with Journal.held(log) as journal:
        if ending(journal.events(), retry_failed=brief.retry_failed) is not None:
            return 0
        journal.append("started", {"time": time.time(), "pid": os.getpid(), "host": os.uname().nodename})
        try:
            facts = function(journal)
        except Interrupted:
            return INTERRUPTED
        except Exception as error:
            journal.append(*failure(error))
            return 0
        journal.append("finished", facts)
        if not brief.keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0


def train_in(
    application: Application[Any, Any, Any],
    source: Any,
    config: Any,
    data: Any,
    work: Path,
    progress: ProgressName | Progress = "off",
) -> Trained[Any]:
    """Trains in a run directory, or reads what came of it: killed after its end, nothing is trained again."""
    done = trained(application, source, config, data, work, progress=progress)
    if done is None:
        done = application.fit(config, data, directory=RunDirectory.open(work, task=application.name).last)
    return done


def failure(error: Exception) -> tuple[str, dict[str, Any]]:
    """The event and its facts for an error; mistakes of ours with their traceback.

    >>> failure(Diverged("the loss became nan at step 3"))
    ('diverged', {'reason': 'the loss became nan at step 3'})
    """
    if isinstance(error, InputError):
        return "diverged" if isinstance(error, Diverged) else "failed", {"reason": str(error)}
    if isinstance(error, Pruned):
        return "pruned", {"reason": str(error)}
    said = " ".join(str(error).split())[:300]
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return "failed", {"reason": reason, "traceback": "".join(traceback.format_exception(error))}


def facts_of(done: Trained[Any]) -> dict[str, Any]:
    """What training came to: seconds and steps of all networks, epochs of the longest of them."""
    best = done.best
    return {
        "seconds": sum(result.seconds for result in done.results),
        "epochs": max(len(result.history) for result in done.results),
        "steps": sum(result.steps for result in done.results),
        "best": best if best == best else None,
    }


def peak_mib() -> float:
    """Most resident memory of this process so far, in MiB; 0 where the system does not say.

    >>> peak_mib() >= 0
    True
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            found = re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0
