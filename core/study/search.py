"""What a search for settings looks for, and one trial of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.command import RunDirectory
from core.errors import InputError
from core.study.grid import parse_varied, shown
from core.study.journal import Journal
from core.study.worker import Brief, Pruned, facts_of, recorded, train_in, without_patience
from core.training.progress import Silent

WHERE = "--search"
SHARES = 10
"""Trials are compared after each of so many equal parts of their epochs, however many these are."""
UNPRUNED_TRIALS, UNPRUNED_SHARES = 5, 3
"""Trials, and parts of a trial, that are never pruned."""
_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^.,]+(?:\.[^.,]+)?)\.\.(?P<high>[^,]+)")


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A field and where its value is looked for.

    Attributes:
        field: dotted path.
        kind: one of the values, or between the two of them.
        values: plain data.
        log: the logarithm is drawn evenly.
    """

    field: str
    kind: Literal["choice", "int", "float"]
    values: tuple[Any, ...]
    log: bool = False

    def distribution(self) -> Any:
        """As Optuna has it; a choice is named by its words, as a value may be a list."""
        from optuna import distributions

        if self.kind == "choice":
            return distributions.CategoricalDistribution([shown(value) for value in self.values])
        low, high = self.values
        kind = distributions.IntDistribution if self.kind == "int" else distributions.FloatDistribution
        return kind(low, high, log=self.log)

    def value(self, drawn: Any) -> Any:
        """The field's value for what was drawn."""
        if self.kind != "choice":
            return drawn
        return next(value for value in self.values if shown(value) == drawn)


def parse_searched(text: str, base: Any) -> Searched:
    """``FIELD=LOW..HIGH``, ``FIELD=log:LOW..HIGH`` or ``FIELD=V1,V2``, read by the rules of the config.

    Raises:
        InputError: no such field, a value of another type, or a range that is none.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Config:
    ...     lr: float = 1e-3
    ...     layers: int = 2
    >>> parse_searched("lr=log:1e-4..1e-2", Config())
    Searched(field='lr', kind='float', values=(0.0001, 0.01), log=True)
    >>> parse_searched("layers=1..4", Config()).kind, parse_searched("layers=1,4", Config()).kind
    ('int', 'choice')
    """
    path, equals, rest = text.partition("=")
    found = _RANGE.fullmatch(rest.strip()) if equals else None
    if found is None:
        varied = parse_varied(text, base, where=WHERE)
        return Searched(field=varied.field, kind="choice", values=varied.values)
    varied = parse_varied(f"{path}={found['low']},{found['high']}", base, where=WHERE)
    low, high = varied.values
    where, log = f"{WHERE}: {varied.field}", found["log"] is not None
    if type(low) not in (int, float) or type(low) is not type(high):
        raise InputError("a range needs two numbers", where=where, mend="or name the values: V1,V2")
    if not low < high or (log and low <= 0):
        mend = "the lower end comes first" + (", and has a logarithm" if log else "")
        raise InputError(f"{rest.strip()} is no range", where=where, mend=mend)
    return Searched(field=varied.field, kind="int" if type(low) is int else "float", values=(low, high), log=log)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training with settings that were drawn.

    Attributes:
        brief: what it shares with the others.
        log: where it is written down.
        work: its run directory.
        config: with its settings, of a single network.
        minutes: budget that decides its epochs; None for those of the config.
        rivals: earlier trials, of Optuna, to be pruned by; None for no pruning.
    """

    brief: Brief
    log: Path
    work: Path
    config: Any
    minutes: float | None
    rivals: Sequence[Any] | None

    def of(self, config: Any) -> Trial:
        """The same with a config."""
        return dataclasses.replace(self, config=config)

    def perform(self) -> int:
        """Do the trial, or what is left of it; returns the exit status of the process."""
        return recorded(self.log, self.work, self._run, self.brief)

    def fail(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write down an end that the process did not live to."""
        with Journal.held(self.log) as journal:
            journal.append(event, facts)

    def _run(self, journal: Journal) -> dict[str, Any]:
        brief, application = self.brief, self.brief.application
        brief.prepare()
        data = brief.load(self.config)
        config = self._decided(data)
        watcher = Watcher(
            journal,
            name=application.monitored(config, data),
            greater=application.greater_is_better(config, data),
            epochs=config.fit.max_epochs,
            rivals=self.rivals,
        )
        done = train_in(application, brief.source, config, data, self.work, progress=watcher)
        return {**facts_of(done), "max_epochs": config.fit.max_epochs}

    def _decided(self, data: Any) -> Any:
        """The config with its epochs, which were decided when the trial began."""
        application = self.brief.application
        if (self.work / "config.yaml").is_file():
            return RunDirectory.open(self.work, task=application.name).config(application.config)
        if self.minutes is None:
            return self.config
        return without_patience(application.within(self.config, data, self.minutes))


class Watcher(Silent):
    """Notes each epoch's validation number in the trial's log, and ends a trial that is behind the others.

    Args:
        journal: of the trial; epochs that it holds already count.
        name: of the number in the records of an epoch.
        greater: whether it should rise.
        epochs: of the whole trial.
        rivals: as of :class:`Trial`.
    """

    def __init__(
        self, journal: Journal, *, name: str, greater: bool, epochs: int, rivals: Sequence[Any] | None
    ) -> None:
        self._journal, self._name, self._greater, self._epochs, self._rivals = journal, name, greater, epochs, rivals

    def evaluated(self, record: Mapping[str, Any], improved: bool) -> None:
        """An epoch was finished; one that is done again after a kill comes to the same number."""
        epoch = int(record["epoch"])
        facts = {"epoch": epoch, "of": self._epochs, "value": float(record[self._name])}
        self._journal.append("epoch", facts)
        reached = shares_of(self._journal.events(), greater=self._greater)
        share = max(reached, default=SHARES)
        if share < SHARES and end_of(share, self._epochs) == epoch and self._behind(reached):
            raise Pruned(f"behind the median of the others after {100 * share // SHARES} % of its epochs")

    def _behind(self, reached: Mapping[int, float]) -> bool:
        if self._rivals is None:
            return False
        import optuna

        pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_SHARES)
        study = in_memory(self._rivals, greater=self._greater)
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(reached))
        return bool(pruner.prune(study, trial))


def end_of(share: int, epochs: int) -> int:
    """The epoch with which a share of them is over.

    >>> [end_of(share, 25) for share in (1, 2, 10)]
    [3, 5, 25]
    """
    return math.ceil(share * epochs / SHARES)


def shares_of(events: Sequence[Mapping[str, Any]], *, greater: bool) -> dict[int, float]:
    """Share of the epochs -> best validation number until then, from the log of a trial.

    >>> log = [{"event": "epoch", "epoch": 1 + i, "of": 20, "value": value} for i, value in enumerate([3, 2, 4, 5, 1])]
    >>> shares_of(log, greater=False)
    {1: 2, 2: 2}
    """
    values = {event["epoch"]: event for event in events if event["event"] == "epoch"}
    found: dict[int, float] = {}
    for share in range(1, SHARES + 1):
        last = end_of(share, next(iter(values.values()))["of"]) if values else 0
        seen = [event["value"] for epoch, event in values.items() if epoch <= last and event["value"] is not None]
        if last not in values or not seen:
            break
        found[share] = max(seen) if greater else min(seen)
    return found


def in_memory(trials: Sequence[Any], *, greater: bool, **options: Any) -> Any:
    """A study of Optuna that holds the trials and is written nowhere."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if greater else "minimize", **options)
    study.add_trials(trials)
    return study
