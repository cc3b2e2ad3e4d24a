"""What the runs of a study came to: lines while they end, then the table, the page and the results file."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.application import Application, Scored
from core.artefact import replace_file
from core.command import note, read_facts, say, stored_config, to_json
from core.errors import InputError
from core.evaluation.metrics import Metric
from core.study.analysis import Analysis, analyse
from core.study.grid import key_of, shown
from core.study.journal import ending, read_events
from core.study.page import PageFacts, write_page
from core.study.plan import Plan, deciding, jobs_of, read_plan
from core.study.records import RunRecord
from core.study.store import StudyDirectory, read_scored, read_settled
from core.study.worker import Job
from core.training.progress import duration


class Tally:
    """Counts the runs of one call, with a line on standard error for each.

    Args:
        names: of the arms, by key.
        metric: that decides, whose value is told.
        runs: of the whole study.
        due: of this call.
        slots: runs at a time; None where that is for others to decide.
    """

    def __init__(self, names: Mapping[str, str], *, metric: str | None, runs: int, due: int, slots: int | None) -> None:
        self._names, self._metric, self._runs, self._due, self._slots = names, metric, runs, due, slots
        self._started = 0.0
        self._done = 0
        self._working = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        """The first run begins."""
        self._started = time.monotonic()

    def ended(self, job: Job) -> None:
        """A run ended."""
        end = ending(read_events(job.log))
        assert end is not None
        self._done += 1
        self._working += end.get("working_seconds", 0.0)
        elapsed = time.monotonic() - self._started
        left = elapsed / self._done * (self._due - self._done)
        place = f"[{self._runs - self._due + self._done}/{self._runs}]"
        line = f"{place} {self._names[job.key]}, seed {job.seed}: {_came_to(end, self._metric)}; {duration(left)} left"
        note(line)

    def close(self) -> None:
        """All have ended."""
        self.seconds = time.monotonic() - self._started

    def to_dict(self) -> dict[str, Any]:
        """What this call took: of every second of every slot, what was neither training nor scoring is overhead."""
        overhead = None
        if self._done and self._slots is not None:
            overhead = (self.seconds * self._slots - self._working) / self._done
        return {"runs": self._done, "seconds": self.seconds, "slots": self._slots, "overhead_seconds_per_run": overhead}


def _came_to(end: Mapping[str, Any], metric: str | None) -> str:
    if end["event"] != "finished":
        return f"{end['event']}: {end['reason']}"
    name = metric or next(iter(end["metrics"]))
    return f"{name} {end['metrics'][name]:.4g} in {end['seconds']:.0f} s"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The runs of a study that have ended.

    Attributes:
        records: for the analysis.
        missing: how many have not.
        epochs: of each arm whose number is decided, by its name.
        overhead: seconds that each run cost besides training and scoring, of those that nobody cut.
        commits: of the program that finished runs.
    """

    records: tuple[RunRecord, ...]
    missing: int
    epochs: Mapping[str, int]
    overhead: tuple[float, ...]
    commits: tuple[str, ...]


def read_outcome(directory: StudyDirectory, plan: Plan, config: type[Any], metrics: Mapping[str, Metric]) -> Outcome:
    """Reads the logs.

    Raises:
        InputError: a file of the study is damaged.
    """
    settled = {arm.name: read_settled(directory.arm(key_of(arm)), config) for arm in plan.arms}
    records: list[RunRecord] = []
    finished: list[Mapping[str, Any]] = []
    jobs = jobs_of(plan)
    for arm, seed in jobs:
        key, known = key_of(arm), settled[arm.name]
        end = ending(read_events(directory.log(key, seed)))
        if end is None:
            continue
        parameters = 0 if known is None else known.parameters
        record = RunRecord(arm=arm.name, seed=seed, status=end["event"], parameters=parameters, metrics={})
        if end["event"] == "finished":
            finished.append(end)
            scored = read_scored(directory.scores(key, seed), end["scores"], metrics)
            records.append(_with_scores(record, end, scored))
        else:
            records.append(replace(record, reason=end["reason"]))
    return Outcome(
        records=tuple(records),
        missing=len(jobs) - len(records),
        epochs={name: known.config.fit.max_epochs for name, known in settled.items() if known is not None},
        overhead=tuple(end["overhead_seconds"] for end in finished if end["overhead_seconds"] is not None),
        commits=tuple(sorted({str(end.get("commit")) for end in finished})),
    )


def _with_scores(record: RunRecord, end: Mapping[str, Any], scored: Scored) -> RunRecord:
    return replace(
        record,
        **{name: end[name] for name in ("seconds", "epochs", "steps", "best", "peak_mib")},
        metrics={name: math.nan if value is None else value for name, value in end["metrics"].items()},
        scored=scored,
    )


def report(
    application: Application[Any, Any, Any],
    directory: StudyDirectory,
    *,
    data: Any = None,
    tally: Tally | None = None,
    json: Path | None = None,
) -> None:
    """Writes results and page, and says the answer.

    Args:
        application: what was trained.
        directory: of the study.
        data: loaded again where absent.
        tally: of the runs of this call.
        json: another place for the results.

    Raises:
        InputError: there is no study, its data are others by now, or a file is damaged.
    """
    plan = read_plan(directory.plan)
    if data is None:
        data = _data(application, plan, directory.plan)
    metrics = deciding(application.metrics(data), plan.metric)
    outcome = read_outcome(directory, plan, application.config, metrics)
    if not any(record.status == "finished" for record in outcome.records):
        raise InputError("no run has finished", where=str(directory.path), mend=_first_reason(outcome))
    analysis = analyse(plan.arms, outcome.records, metrics)
    results = _results(application, plan, outcome, analysis, tally)
    for path in (directory.results, *([json] if json else [])):
        replace_file(path, to_json(results) + "\n")
    environment = read_facts(directory.plan)["environment"]
    facts = PageFacts(
        question=question([each.field for each in plan.varied]),
        asked=_asked(plan),
        task=application.name,
        model=application.model_name,
        split=plan.split,
        measured=_measured(plan, outcome, environment),
        command=shlex.join(environment["command"]),
    )
    write_page(analysis, facts, directory.page)
    _tell(analysis, outcome, directory)


def _data(application: Application[Any, Any, Any], plan: Plan, where: Path) -> Any:
    if plan.task != application.name:
        raise InputError(f"is a study of {plan.task!r}, not of {application.name!r}", where="--out")
    config = stored_config(application.config, plan.base, where=str(where))
    source = application.source(**plan.source)
    data = application.load(source, config)
    if application.facts(source, data)["digest"] != plan.digests:
        raise InputError("the data are not those of the study any more", where=str(source.data))
    return data


def _first_reason(outcome: Outcome) -> str:
    return next((f"the first one {record.status}: {record.reason}" for record in outcome.records), "train some first")


def question(fields: Sequence[str]) -> str:
    """The question about fields, short enough for a title.

    >>> question(["model.norm", "model.placement", "mixing.kind"])
    'Does model.norm, model.placement or mixing.kind help?'
    >>> question(["a", "b", "c", "d", "e", "f"])
    'Does a, b, c or one of 3 other fields help?'
    """
    if len(fields) > _NAMED + 1:
        fields = [*fields[:_NAMED], f"one of {len(fields) - _NAMED} other fields"]
    return f"Does {_listed(fields)} help?"


_NAMED = 3


def _asked(plan: Plan) -> str:
    """What the question means, one sentence on the values and one on the arms."""
    values = "; ".join(f"{each.field}: {_listed([shown(value) for value in each.values])}" for each in plan.varied)
    if len(plan.varied) == 1:
        return f"{values}."
    arms = "one field changes at a time" if plan.one_at_a_time else "all combinations are compared"
    return f"{values}. Of these {arms}."


def _listed(words: Sequence[str]) -> str:
    return " or ".join([*filter(None, [", ".join(words[:-1])]), words[-1]])


def _measured(plan: Plan, outcome: Outcome, environment: Mapping[str, Any]) -> dict[str, str]:
    """What the page says about how it was measured."""
    numbers = sorted(set(outcome.epochs.values()))
    epochs = f"{numbers[0]}" if len(numbers) == 1 else "; ".join(f"{n}: {name}" for name, n in outcome.epochs.items())
    if plan.minutes_per_run is None:
        budget = f"equal epochs, as the config says ({epochs}); wall time differs"
    else:
        budget = f"{plan.minutes_per_run:g} wall minutes a run; epochs measured once for each arm ({epochs})"
    facts = {
        "Budget": budget,
        "Runs": f"{len(plan.arms)} arms, each with the seeds {', '.join(map(str, plan.seeds))}"
        + (f"; {outcome.missing} runs missing" if outcome.missing else ""),
        "Data": str(plan.source.get("data")),
        "Digest": ", ".join(f"{name} {digest}" for name, digest in plan.digests.items()),
        "Machine": f"{environment['cpus']} processors, {environment['platform']}",
        "Threads": f"{plan.threads} a run",
        "Commit": ", ".join(outcome.commits),
    }
    if outcome.overhead:
        mean = sum(outcome.overhead) / len(outcome.overhead)
        facts["Overhead"] = f"{mean:.2f} s a run besides training and scoring"
    return facts


def _results(
    application: Application[Any, Any, Any], plan: Plan, outcome: Outcome, analysis: Analysis, tally: Tally | None
) -> dict[str, Any]:
    overhead = outcome.overhead
    return {
        "format": "manyformer-comparison-results",
        "task": application.name,
        "model": application.model_name,
        "split": plan.split,
        "varied": {each.field: list(each.values) for each in plan.varied},
        "seeds": list(plan.seeds),
        "minutes_per_run": plan.minutes_per_run,
        "epochs": outcome.epochs,
        "threads": plan.threads,
        "missing": outcome.missing,
        "analysis": analysis.to_dict(),
        "runs": [
            {
                "arm": record.arm,
                "seed": record.seed,
                "status": record.status,
                "reason": record.reason,
                "seconds": record.seconds,
                "epochs": record.epochs,
                "steps": record.steps,
                "best": record.best,
                "parameters": record.parameters,
                "peak_mib": record.peak_mib,
                "metrics": record.metrics,
            }
            for record in outcome.records
        ],
        "commits": outcome.commits,
        "overhead_seconds_per_run": sum(overhead) / len(overhead) if overhead else None,
        "call": tally.to_dict() if tally else None,
    }


def _tell(analysis: Analysis, outcome: Outcome, directory: StudyDirectory) -> None:
    lines = [analysis.markdown(), "", *analysis.sentences()]
    bad = [record for record in outcome.records if record.status != "finished"]
    lines += [f"{record.status}: {record.arm}, seed {record.seed}: {record.reason}" for record in bad]
    if outcome.missing:
        lines.append(f"{outcome.missing} runs are missing: the same command without --report goes on")
    say("\n".join([*lines, "", f"the page is {directory.page}"]))
