"""The verb ``tune``: which settings are best by their validation number? Trials of Optuna, and a page about them.

::

    OUT/search.json           what is asked
    OUT/runs/trial-N.jsonl    the log of a trial: its settings, its epochs, its end
    OUT/trials.log            Optuna's journal of the trials that have ended
    OUT/best.yaml             the best settings, usable as --config
    OUT/results.json, OUT/report/index.html

A trial's settings are drawn from its number and the trials before it, so that a search that is killed goes on as if it
had not been.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from core.application import Application
from core.artefact import replace_file
from core.command import config_to_dict, differences, note, only_writer, read_facts, require, stored_config
from core.command.environment import environment
from core.errors import InputError
from core.study.grid import changed, check_fields, fixed_fields, plain_fields, shown
from core.study.isolation import alone, await_server, prepare
from core.study.journal import Journal, ending, read_events
from core.study.question import check_budget, imported_since, read_line, source_of
from core.study.search import WHERE, Searched, Trial, in_memory, parse_searched, shares_of
from core.study.trials import tell
from core.study.worker import Brief
from core.training import Interrupted

FORMAT, VERSION = "manyformer-search", 1
_STATES = {"finished": "COMPLETE", "pruned": "PRUNED", "diverged": "PRUNED", "failed": "FAIL"}


@dataclass(frozen=True, kw_only=True)
class TuneArguments:
    """Search for the settings with the best validation number; the test split is not looked at.

    Each trial is one training, of one network where the application trains several. The same command goes on where it
    was cut. Fields of the config set what all trials share.
    """

    out: Path
    """Folder of the search."""
    search: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=LOW..HIGH, FIELD=log:LOW..HIGH or FIELD=VALUE,VALUE,... of the config. Once for each field."""
    trials: int = 30
    """Trials in all; more may be added later."""
    minutes: float | None = None
    """Wall minutes of this call, after which no trial begins."""
    minutes_per_run: float | None = None
    """Wall minutes of every trial, which gets as many epochs as they allow; those of the config unless given."""
    prune: bool = True
    """End a trial that is behind the median of the others after the same share of its epochs."""
    threads: int = 1
    """Threads of each trial."""
    json: Path | None = None
    """Also write the results to this file."""

    def __post_init__(self) -> None:
        for name in ("trials", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", where=f"--{name}")
        for name, value in (("--minutes", self.minutes), ("--minutes-per-run", self.minutes_per_run)):
            if value is not None and not value > 0:
                raise InputError(f"{value:g} minutes leave no time", where=name)


def tune(application: Application[Any, Any, Any], argv: Sequence[str]) -> None:
    """The verb on a command line.

    Args:
        application: what is trained.
        argv: words after ``manyformer tune NAME``.

    Raises:
        InputError: anything wrong with them, or a folder that holds something else.
        Interrupted: stopped by a signal, after the running trial has saved.
    """
    require("optuna", "tune").logging.set_verbosity(30)  # warnings
    parsed = read_line(application, TuneArguments, argv, verb="tune")
    line, base = parsed.arguments, parsed.config
    space = _space(line, base, fixed_fields(argv, application.config))
    source, before = source_of(application, line), dict(sys.modules)
    data = application.load(source, base)
    application.build(base, data)
    _check_judge(application, base, data, space)
    digests = application.facts(source, data)["digest"]
    with only_writer(line.out):
        _claim(application, line, source, base, digests, space)
        brief = Brief(
            application=application,
            source=source,
            digests=digests,
            split="train",
            study=line.out,
            threads=line.threads,
        )
        prepare([type(application).__module__, "optuna", *imported_since(before)])
        search = Search(brief, line, base, space, greater=application.greater_is_better(base, data))
        try:
            search.run()
        except KeyboardInterrupt:
            raise Interrupted(line.out) from None
        epochs_only = {} if line.minutes_per_run is None else {"fit.patience": None}
        tell(search.study, space, changed(base, epochs_only), line.out, json=line.json)


def _space(line: TuneArguments, base: Any, fixed: Sequence[str]) -> tuple[Searched, ...]:
    space = tuple(parse_searched(text, base) for text in line.search)
    if not space:
        raise InputError("nothing is searched", where=WHERE, mend=f"name a field: {WHERE} optim.lr=log:1e-4..1e-2")
    budgeted = line.minutes_per_run is not None
    check_fields([each.field for each in space], fixed, budgeted=budgeted, where=WHERE)
    check_budget(base, fixed, budgeted=budgeted)
    return space


def _check_judge(application: Application[Any, Any, Any], base: Any, data: Any, space: Sequence[Searched]) -> None:
    """Refuses a field that decides which validation number is watched: trials would not be comparable."""

    def judge(config: Any) -> tuple[str, bool]:
        return application.monitored(config, data), application.greater_is_better(config, data)

    for each in space:
        values = each.values if each.kind == "choice" else ()
        if any(judge(changed(base, {each.field: value})) != judge(base) for value in values):
            raise InputError("decides which number trials are judged by", where=f"{WHERE}: {each.field}", mend="fix it")


def _claim(
    application: Application[Any, Any, Any],
    line: TuneArguments,
    source: Any,
    base: Any,
    digests: Any,
    space: Sequence[Searched],
) -> None:
    """Writes down what is asked, or refuses a folder that was asked something else."""
    asked = {
        "format": FORMAT,
        "version": VERSION,
        "task": application.name,
        "source": {name: value for name, value in plain_fields(source).items() if name != "data"},
        "digests": digests,
        "base": config_to_dict(base),
        "search": {each.field: asdict(each) for each in space},
        "minutes_per_run": line.minutes_per_run,
        "prune": line.prune,
        "threads": line.threads,
    }
    path = line.out / "search.json"
    if not path.is_file():
        if any(line.out.iterdir()):
            raise InputError("holds other files than a search", where=str(line.out), mend="choose an empty folder")
        replace_file(path, json.dumps({**asked, "environment": environment()}, indent=2) + "\n")
        return
    known = read_facts(path)
    known.pop("environment", None)
    if all(known.get(name) == asked[name] for name in ("format", "version", "task")):
        known["base"] = config_to_dict(stored_config(type(base), known.get("base"), where=str(path)))
    differing = differences(known, json.loads(json.dumps(asked)))
    if differing:
        what = f"this search asks something else (it differs in {', '.join(differing)})"
        raise InputError(what, where=str(line.out), mend="give the former, or another --out")


class Search:
    """The trials, one after the other.

    Args:
        brief: what they share.
        line: how many, how long.
        base: config of all of them.
        space: what is searched.
        greater: whether the validation number should rise.
    """

    def __init__(
        self, brief: Brief, line: TuneArguments, base: Any, space: Sequence[Searched], *, greater: bool
    ) -> None:
        self._brief, self._line, self._base, self._space, self._greater = brief, line, base, space, greater
        self._distributions = {each.field: each.distribution() for each in space}
        self.study = _persistent(line.out / "trials.log", greater)

    def run(self) -> None:
        """Until there are enough trials, or the minutes are over.

        Raises:
            Interrupted: the process of a trial was told to stop.
        """
        began, minutes = time.monotonic(), self._line.minutes
        await_server()
        while (number := len(self.study.trials)) < self._line.trials:
            if minutes is not None and time.monotonic() - began >= 60 * minutes:
                return
            log = self._brief.study / "runs" / f"trial-{number}.jsonl"
            params = self._asked(number, log)
            self._perform(number, log, params)
            end = ending(read_events(log))
            assert end is not None
            self.study.add_trial(self._frozen(log, params, end))
            words = ", ".join(f"{name}={shown(value)}" for name, value in params.items())
            said = f"{end['best']:.5g}" if end["event"] == "finished" else f"{end['event']}: {end['reason']}"
            note(f"[{number + 1}/{self._line.trials}] {words}: {said}")

    def _asked(self, number: int, log: Path) -> dict[str, Any]:
        """The settings of a trial, drawn once."""
        import optuna

        known = next((event for event in read_events(log) if event["event"] == "asked"), None)
        if known is None:
            sampler = optuna.samplers.TPESampler(seed=1_000_003 * self._base.seed + number)
            study = in_memory(self.study.trials, greater=self._greater, sampler=sampler)
            known = {"params": study.ask(self._distributions).params}
            with Journal.held(log) as journal:
                journal.append("asked", known)
        params: dict[str, Any] = known["params"]
        return params

    def _perform(self, number: int, log: Path, params: dict[str, Any]) -> None:
        if ending(read_events(log)) is not None:
            return
        application = self._brief.application
        trial = Trial(
            brief=self._brief,
            log=log,
            work=self._brief.study / "work" / f"trial-{number}",
            config=None,
            minutes=self._line.minutes_per_run,
            rivals=self.study.trials if self._line.prune else None,
        )
        try:
            values = {each.field: each.value(params[each.field]) for each in self._space}
            config = application.alone(changed(self._base, values))
        except InputError as error:  # values that do not go together
            trial.fail("failed", {"reason": str(error)})
            return
        if alone(trial.of(config)):
            raise Interrupted(self._brief.study)

    def _frozen(self, log: Path, params: dict[str, Any], end: Any) -> Any:
        """The trial as Optuna keeps it. One that diverged counts as worse than all; one that failed says nothing."""
        import optuna

        state = optuna.trial.TrialState[_STATES[end["event"]]]
        best = end.get("best")
        if end["event"] == "finished" and best is None:
            state = optuna.trial.TrialState.FAIL
        shares = {} if end["event"] == "diverged" else shares_of(read_events(log), greater=self._greater)
        return optuna.trial.create_trial(
            state=state,
            value=best if state == optuna.trial.TrialState.COMPLETE else None,
            params=params,
            distributions=self._distributions,
            user_attrs={name: end[name] for name in ("seconds", "max_epochs", "reason") if name in end},
            intermediate_values=shares,
        )


def _persistent(path: Path, greater: bool) -> Any:
    """Optuna's study on disk, mended where a kill cut its last line; this process alone writes it."""
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.is_file():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            replace_file(path, data[: data.rfind(b"\n") + 1])
    storage = JournalStorage(JournalFileBackend(str(path)))
    return create_study(
        storage=storage, study_name="search", direction="maximize" if greater else "minimize", load_if_exists=True
    )
