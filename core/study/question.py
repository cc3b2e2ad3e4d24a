"""From a command line to a plan and to what its runs need; what is wrong is said here, before anything is written."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from torch import nn

from core.application import Application
from core.command import Parsed, config_to_dict, parse_config, stored_config
from core.errors import InputError, nearest
from core.evaluation.metrics import Metric
from core.study.grid import (
    DATA_SHARE,
    DECIDED,
    Varied,
    changed,
    check_varied,
    fixed_fields,
    key_of,
    parse_arms,
    plain_fields,
    settings_of,
)
from core.study.plan import Plan, check_extends, check_folder, deciding, read_plan
from core.study.records import Arm
from core.study.store import StudyDirectory


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Train every arm with several seeds, and say which settings helped, by how much, and how sure that is.

    An arm is one combination of the values that vary. The same command goes on where it was cut. Fields of the config
    set what all arms share.
    """

    out: Path
    """Folder of the study. On several machines (--ray) they must all see it."""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,... of the config, or data.share=1,0.5,... of the training split; the first value is the
    baseline. Once for each field."""
    seeds: int = 5
    """Runs of each arm, with so many seeds in a row from --seed on; more may be added later."""
    minutes_per_run: float | None = None
    """Wall minutes of every run: each arm gets as many epochs as they allow, measured once. Unless given, all train the
    epochs of the config."""
    one_at_a_time: bool = False
    """Change one field at a time from the baseline, in place of all combinations."""
    split: str = "test"
    """Split to score."""
    metric: str | None = None
    """Metric that decides, one of the application's; its first one unless given. Part of the question: it cannot be
    another one afterwards."""
    jobs: int = 1
    """Runs at a time; Ray finds out by itself."""
    threads: int | None = None
    """Threads of each run; the processors divided by --jobs unless given."""
    ray: str | None = None
    """Hand the runs to Ray: the address of a cluster; with no address, one is started here."""
    retry_failed: bool = False
    """Try failed runs again."""
    keep_runs: bool = False
    """Keep the run directories, in the study's folder work."""
    report: bool = False
    """Train nothing: write the page about the runs that have ended. Only --out and --json go with it."""
    json: Path | None = None
    """Also write the results to this file."""

    def __post_init__(self) -> None:
        for name in ("seeds", "jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"must be at least 1, got {value}", where=f"--{name}")
        if self.minutes_per_run is not None and not self.minutes_per_run > 0:
            raise InputError(f"{self.minutes_per_run:g} minutes leave no time", where="--minutes-per-run")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An arm with what it takes to run it.

    Attributes:
        arm, key: which.
        config: with the first seed, its epochs not yet decided.
        share: of the training split.
        parameters: of all its networks.
    """

    arm: Arm
    key: str
    config: Any
    share: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a command line asks.

    Attributes:
        line: its arguments.
        source: those that say which data.
        base: the config that is common to all arms.
        varied: the fields that vary.
    """

    line: CompareArguments
    source: Any
    base: Any
    varied: tuple[Varied, ...]

    def plan(self, application: Application[Any, Any, Any], data: Any, known: Plan | None) -> Plan:
        """The plan of it; ``known`` is the one in the folder, which is asked for more.

        Raises:
            InputError: there is no such split or metric, or the folder holds another question.
        """
        line = self.line
        digests = application.facts(self.source, data)["digest"]
        if line.split not in digests:
            raise InputError(f"there is no split {line.split!r}", where="--split", mend=nearest(line.split, [*digests]))
        threads = line.threads or (known.threads if known else max(1, len(os.sched_getaffinity(0)) // line.jobs))
        base = changed(self.base, settings_of({each.field: each.values[0] for each in self.varied}))
        plan = Plan(
            task=application.name,
            source=plain_fields(self.source),
            digests=digests,
            base=config_to_dict(base),
            varied=self.varied,
            one_at_a_time=line.one_at_a_time,
            seeds=tuple(range(base.seed, base.seed + line.seeds)),
            split=line.split,
            metric=next(iter(deciding(application.metrics(data), line.metric))),
            minutes_per_run=line.minutes_per_run,
            threads=threads,
        )
        if known is not None:
            check_extends(known, plan, str(line.out))
        return plan


def ask(application: Application[Any, Any, Any], argv: Sequence[str]) -> Question:
    """Reads a command line.

    Raises:
        InputError: anything wrong with it.
    """
    parsed = read_line(application, CompareArguments, argv, verb="compare")
    line, base = parsed.arguments, parsed.config
    varied = tuple(parse_arms(text, base) for text in line.vary)
    fixed, budgeted = fixed_fields(argv, application.config), line.minutes_per_run is not None
    if line.report:
        _check_alone(argv)
    else:
        check_varied(varied, fixed, budgeted=budgeted)
    check_budget(base, fixed, budgeted=budgeted)
    return Question(line=line, source=source_of(application, line), base=base, varied=varied)


def check_budget(base: Any, fixed: Sequence[str], *, budgeted: bool) -> None:
    """Refuses what contradicts a budget, or makes a run depend on the clock.

    Args:
        base: config of all runs.
        fixed: paths of the fields that the command line sets.
        budgeted: minutes decide how many epochs a run has.
    """
    if base.fit.max_minutes is not None and not budgeted:
        mend = "say how many epochs, or --minutes-per-run"
        raise InputError("a run must not depend on the clock", where="fit.max_minutes", mend=mend)
    for name in DECIDED:
        if budgeted and name in fixed:
            raise InputError("is decided by --minutes-per-run", where=f"--{name}", mend="leave one of them out")


def _check_alone(argv: Sequence[str]) -> None:
    """Refuses what a page about another question would be asked with."""
    for word in argv:
        name = word.partition("=")[0]
        if word.startswith("--") and name not in ("--out", "--json", "--report"):
            raise InputError("does not go with --report", where=name, mend="the study knows what was asked")


def read_line(
    application: Application[Any, Any, Any], arguments: type[Any], argv: Sequence[str], *, verb: str
) -> Parsed[Any, Any]:
    """A command line with the verb's arguments, the application's source and its config."""
    line = dataclasses.make_dataclass("Line", [], bases=(arguments, application.source), frozen=True, kw_only=True)
    line.__doc__ = arguments.__doc__
    prog = f"manyformer {verb} {application.name}"
    return parse_config(application.config, application.presets, argv, arguments=line, prog=prog)


def source_of(application: Application[Any, Any, Any], line: Any) -> Any:
    """The arguments that say which data, by themselves."""
    kind = application.source
    return kind(**{field.name: getattr(line, field.name) for field in dataclasses.fields(kind)})


def known_plan(directory: StudyDirectory, config: type[Any], metrics: Mapping[str, Metric]) -> Plan | None:
    """The plan in a folder; None in a new one. What is newer than it has the meaning of when it was written.

    Args:
        directory: of the study.
        config: the application's; fields that the plan lacks have their defaults, so that asking for more is refused
            where they have other values by now.
        metrics: the application's; the first one decided before there was a choice.

    Raises:
        InputError: the folder holds something else.
    """
    check_folder(directory.path)
    if not directory.plan.is_file():
        return None
    plan = read_plan(directory.plan)
    base = config_to_dict(stored_config(config, plan.base, where=str(directory.plan)))
    return dataclasses.replace(plan, base=base, metric=plan.metric or next(iter(metrics)))


def variants_of(application: Application[Any, Any, Any], plan: Plan, base: Any, data: Any) -> list[Variant]:
    """Every arm of a plan, its network built once, so that what cannot be is refused before the first run.

    Raises:
        InputError: an arm's config, or a network for these data, cannot be; the arm is named.
    """
    found = []
    for arm in plan.arms:
        try:
            config = changed(base, {**settings_of(arm.changes), "seed": plan.seeds[0]})
            share = arm.changes.get(DATA_SHARE, 1.0)
            network = application.build(config, data if share == 1 else application.part(data, share))
        except InputError as error:
            where = f"the arm {arm.name}" + (f": {error.where}" if error.where else "")
            raise InputError(error.what, where=where, mend=error.mend) from error
        parameters = _count(network) * application.networks(config)
        found.append(Variant(arm=arm, key=key_of(arm), config=config, share=share, parameters=parameters))
    return found


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def imported_since(before: Mapping[str, Any]) -> list[str]:
    """The modules that were imported since ``before``, a copy of ``sys.modules``, in that order."""
    return [
        name
        for name, module in [*sys.modules.items()]
        if name not in before and getattr(module, "__spec__", None) is not None
    ]
