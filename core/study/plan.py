"""What a study asks, written down before its first run: a folder answers one question, and can be asked more of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.artefact import replace_file
from core.command import differences, read_facts
from core.errors import InputError, nearest
from core.evaluation.metrics import Metric
from core.study.grid import Varied, make_arms, shown
from core.study.records import Arm

FORMAT, VERSION = "manyformer-comparison", 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The question.

    Attributes:
        task: in the ``manyformer`` command.
        source: the application's arguments that say which data.
        digests: a fingerprint of each split.
        base: the config that all arms share, as plain data; the fields that vary hold the baseline's values.
        varied: the fields that vary.
        one_at_a_time: the arms differ from the baseline in one field each; else they are all combinations.
        seeds: of the runs of every arm.
        split: that is scored.
        metric: that decides; None in what was written before there was a choice, for the application's first.
        minutes_per_run: the budget that decides the epochs of each arm; None for those of the config.
        threads: of each run.
    """

    task: str
    source: Mapping[str, Any]
    digests: Mapping[str, Any]
    base: Mapping[str, Any]
    varied: tuple[Varied, ...]
    one_at_a_time: bool
    seeds: tuple[int, ...]
    split: str
    metric: str | None
    minutes_per_run: float | None
    threads: int

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is compared, the baseline first."""
        return make_arms(self.varied, one_at_a_time=self.one_at_a_time)


def write_plan(path: Path, plan: Plan, environment: Mapping[str, Any]) -> None:
    """Writes the plan in one step; ``environment`` is that of the call which asked."""
    facts = {"format": FORMAT, "version": VERSION, **asdict(plan), "environment": dict(environment)}
    replace_file(path, json.dumps(facts, indent=2) + "\n")


def read_plan(path: Path) -> Plan:
    """The plan in the folder of a study.

    Raises:
        InputError: it is missing, of another program or version, or damaged.
    """
    facts = read_facts(path)
    if facts.get("format") != FORMAT:
        raise InputError("was not written by manyformer compare", where=str(path), mend="choose a new or empty folder")
    if facts.get("version") != VERSION:
        what = f"is of version {facts.get('version')}, this program reads {VERSION}"
        raise InputError(what, where=str(path), mend="choose a new folder")
    try:
        varied = tuple(Varied(field=each["field"], values=tuple(each["values"])) for each in facts["varied"])
        names = ("task", "source", "digests", "base", "one_at_a_time", "split", "minutes_per_run", "threads")
        given = {name: facts[name] for name in names}
        return Plan(varied=varied, seeds=tuple(facts["seeds"]), metric=facts.get("metric"), **given)
    except (KeyError, TypeError) as error:
        raise InputError(f"is no plan ({error!r})", where=str(path), mend="the file is damaged") from error


def deciding(metrics: Mapping[str, Metric], name: str | None) -> dict[str, Metric]:
    """The metrics of an application, the one that decides first.

    Args:
        metrics: those of :meth:`core.application.Application.metrics`.
        name: of it; None for their first.

    Raises:
        InputError: there is no such metric.

    >>> from core.evaluation.metrics import REGRESSION
    >>> [*deciding({name: REGRESSION[name] for name in ("rmse", "mae", "r2")}, "mae")]
    ['mae', 'rmse', 'r2']
    """
    if name is not None and name not in metrics:
        raise InputError(f"there is no metric {name!r}", where="--metric", mend=nearest(name, [*metrics]))
    return {each: metrics[each] for each in sorted(metrics, key=lambda each: name not in (None, each))}


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something, and no study; what a study that was killed at its birth left is nothing.

    Raises:
        InputError: it does.
    """
    held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if "study.json" not in held and held - {".study.json.tmp"}:
        raise InputError("holds other files than a study", where=str(folder), mend="choose a new or empty folder")


def check_extends(old: Plan, new: Plan, where: str) -> None:
    """Refuses a plan that is not the old one with, at most, more seeds and more values.

    The place of the data may differ, not the data.

    Raises:
        InputError: naming what differs.
    """
    plain = [json.loads(json.dumps(asdict(plan))) for plan in (old, new)]
    differing = []
    for name in ("task", "split", "metric", "minutes_per_run", "one_at_a_time", "threads"):
        before, now = (plan[name] for plan in plain)
        if before != now:
            differing.append(f"{name} was {shown(before)} and is {shown(now)}")
    sources = [{key: value for key, value in plan["source"].items() if key != "data"} for plan in plain]
    differing += [f"--{name}" for name in differences(sources[0], sources[1])]
    differing += [f"the data of the split {name}" for name in differences(old.digests, new.digests)]
    differing += [f"the fields that vary: {_fields(old)} before"] * (_fields(old) != _fields(new))
    bases = [_without(plan["base"], {each.field for each in (*old.varied, *new.varied)} | {"seed"}) for plan in plain]
    differing += differences(bases[0], bases[1])
    if differing:
        mend = "give the former, or another --out"
        raise InputError(f"this study asks something else ({'; '.join(differing)})", where=where, mend=mend)
    _check_grows(old, new, where)


def _check_grows(old: Plan, new: Plan, where: str) -> None:
    mend = "name them too (more may be added), or choose another --out"
    missing = [str(seed) for seed in old.seeds if seed not in new.seeds]
    if missing:
        raise InputError(f"this study has the seeds {', '.join(missing)} too", where=where, mend=mend)
    later = {each.field: each.values for each in new.varied}
    for each in old.varied:
        values = later[each.field]
        lost = [shown(value) for value in each.values if value not in values]
        if lost:
            raise InputError(f"this study has {each.field}={','.join(lost)} too", where=where, mend=mend)
        if values[0] != each.values[0]:
            what = f"the baseline of this study is {each.field}={shown(each.values[0])}"
            raise InputError(what, where=where, mend="name that value first, or choose another --out")


def _fields(plan: Plan) -> str:
    return ", ".join(sorted(each.field for each in plan.varied))


def _without(plain: Mapping[str, Any], paths: set[str], prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in plain.items():
        path = prefix + name
        if path not in paths:
            kept[name] = _without(value, paths, path + ".") if isinstance(value, Mapping) else value
    return kept


def jobs_of(plan: Plan) -> Sequence[tuple[Arm, int]]:
    """The runs, seed by seed with the arms in turn, so that a machine that slows down meets all arms alike."""
    return [(arm, seed) for seed in plan.seeds for arm in plan.arms]
