"""The verb ``rewrite``: a finished run in, a run with a rewritten model out, and what that changed.

::

    manyformer rewrite RUN --pass fold --pass low_rank:rank=0.5 --out RUN2

Every network of the run goes through the passes in their order. What a pass says of itself is checked on real inputs
(:mod:`core.rewrite.harness`); then parameters, multiply-adds, time and the metrics of a split are compared. RUN2 is a
run like any other: ``evaluate``, ``predict``, ``info`` and ``rewrite`` take it. Its ``rewrite.json`` holds what is
reported here.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from core.application.base import Application, Scored
from core.artefact import replace_file
from core.command import (
    RunDirectory,
    claim_data,
    config_from_dict,
    data_facts,
    only_writer,
    parse_arguments,
    say,
    source_from,
    write_outcome,
    yaml12,
)
from core.command.describe import measured
from core.command.outcome import read_history
from core.command.output import to_json
from core.errors import InputError, nearest
from core.evaluation.bootstrap import paired
from core.rewrite import Evidence, Rewritten, pass_named, rewrite

M = TypeVar("M", bound=Any)
ROUNDS, SECONDS = 7, 4.0
"""Timed passes through a network before and after, in turn: at least so many, and for so long."""


@dataclass(frozen=True, kw_only=True)
class RewriteArguments:
    """Rewrite the model of a finished run, and say what that changed.

    `manyformer blocks --family pass` lists the passes.
    """

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    passes: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="pass", metavar="NAME")] = ()
    """NAME, or NAME:OPTION=VALUE,OPTION=VALUE. Once for each pass, in order."""
    out: Path
    """Folder of the run with the rewritten model."""
    data: str | None = None
    """As for train; the data that the run was trained on unless given."""
    split: str = "test"
    """Split whose metrics are compared; passes that search look at the validation split alone."""
    metric: str | None = None
    """Metric of the validation split by which passes that search go; the application's first unless given."""
    json: Path | None = None
    """Also write the report to this file."""


@dataclass(frozen=True)
class Step:
    """A pass to be applied: its name and its options."""

    name: str
    options: Any


@dataclass(frozen=True)
class Cost:
    """What one network costs.

    Attributes:
        parameters: numbers in it.
        macs: multiply-adds of a pass over the probe.
        milliseconds: median time of that.
        ratio: quartiles of that time to the first network's, turn by turn.
    """

    parameters: int
    macs: int
    milliseconds: float
    ratio: tuple[float, float, float]


def rewrite_run(application: Application[Any, Any, M], argv: Sequence[str]) -> None:
    """The verb on a command line.

    Raises:
        InputError: no finished run, no such pass or option, a model that a pass does not fit, or other data.
    """
    line = parse_arguments(RewriteArguments, argv, prog="manyformer rewrite")
    if not line.passes:
        raise InputError("names no pass", where="--pass", mend="manyformer blocks --family pass lists them")
    steps = [parse_step(text) for text in line.passes]
    run = RunDirectory.trained(line.run, task=application.name)
    if line.out.resolve() == run.path.resolve():
        raise InputError("is the run itself", where="--out", mend="choose another folder")
    if RunDirectory(line.out).config_file.exists():
        raise InputError("holds a run already", where=str(line.out), mend="choose another folder")
    config = run.config(application.config)
    source, facts = _source(application, run, line.data)
    data = application.load(source, config)
    _check_same(application.facts(source, data)["digest"], facts["digest"], line)
    with only_writer(line.out):
        model = application.open(run)
        after, done = rewritten(application, model, data, steps, metric=line.metric)
        report = _report(application, (model, after), data, line.split, done)
        made = RunDirectory.create(line.out, config, task=application.name)
        claim_data(made, facts)
        after.save(made.best)
        replace_file(made.path / "rewrite.json", to_json({"from": str(run.path), **report}) + "\n")
        write_outcome(made, {"rewritten": [*line.passes]}, read_history(run.metrics), complete=True)
    if line.json is not None:
        replace_file(line.json, to_json(report) + "\n")
    say("\n".join([*_lines(report), f"the rewritten model is in {made.best}"]))


def parse_step(text: str) -> Step:
    """The pass and the options of ``NAME:OPTION=VALUE,...``.

    Raises:
        InputError: no such pass, or option, or a value that the option does not take.

    >>> parse_step("low_rank:rank=0.25,maps=[qkv,out]")
    Step(name='low_rank', options=LowRankOptions(rank=0.25, maps=('qkv', 'out'), aware=False))
    """
    name, _, rest = text.partition(":")
    options, where = pass_named(name.strip()).options, f"--pass {name.strip()}"
    given: dict[str, Any] = {}
    for item in re.split(r",(?![^\[]*\])", rest) if rest else ():
        option, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{item!r} is no option", where=where, mend="write NAME:OPTION=VALUE,OPTION=VALUE")
        given[option.strip().replace("-", "_")] = yaml12.load(value)
    return Step(name.strip(), config_from_dict(options, given, where=where, base=options()))


def rewritten(
    application: Application[Any, Any, M], model: M, data: Any, steps: Sequence[Step], *, metric: str | None = None
) -> tuple[M, list[list[Rewritten[nn.Module]]]]:
    """The model with every network rewritten, and what each step did to each network.

    Args:
        application: of the model.
        model: stays as it is.
        data: whose validation split passes look at.
        steps: in their order.
        metric: by which passes that search go; the application's first unless given.

    Raises:
        InputError: a pass that does not fit, or no such metric.
    """
    networks, records, done = [], [], []
    known = application.metrics(data)
    chosen = next(iter(known)) if metric is None else metric
    if chosen not in known:
        raise InputError(f"there is no metric {chosen!r}", where="--metric", mend=nearest(chosen, [*known]))

    def cost(network: nn.Module) -> float:
        alone = application.rewritten(model, [network], [()])
        value = application.score(alone, data, application.validation).measures[chosen].value
        return -value if known[chosen].greater_is_better else value

    evidence = Evidence(run=application.probe(model, data, application.validation), cost=cost)
    for network, before in zip(model.networks, model.rewrites, strict=True):
        of_one: list[Rewritten[nn.Module]] = []
        for step in steps:
            of_one.append(rewrite(network, step.name, step.options, evidence))
            network = of_one[-1].model
        networks.append(network)
        records.append([*before, *(each.rewrite for each in of_one)])
        done.append(of_one)
    return application.rewritten(model, networks, records), done


def _source(application: Application[Any, Any, Any], run: RunDirectory, data: str | None) -> tuple[Any, dict[str, Any]]:
    facts = data_facts(run)
    return source_from({**facts, **({} if data is None else {"data": data})}, application.source), facts


def _check_same(found: Mapping[str, Any], known: Mapping[str, Any], line: RewriteArguments) -> None:
    """Passes choose by the validation split: it must be that of the training, unless other data are asked for."""
    if line.split not in found:
        raise InputError(f"there is no split {line.split!r}", where="--split", mend=nearest(line.split, [*found]))
    other = [name for name in found if found[name] != known.get(name)]
    if other and line.data is None:
        what = f"the {other[0]} split is not the one that the run was trained on any more"
        raise InputError(what, where=str(line.run), mend="give --data to use these data all the same")


# ------------------------------------------------------------------------------------------------------- report


def costs(networks: Sequence[nn.Module], run: Callable[[nn.Module], Tensor]) -> list[Cost]:
    """What each network costs, timed in turn: every other time from the last to the first."""
    facts = [measured(network, run) for network in networks]
    times: list[list[float]] = [[] for _ in networks]
    started = time.perf_counter()
    with torch.inference_mode():
        while len(times[0]) < ROUNDS + 1 or time.perf_counter() - started < SECONDS:
            turn = list(zip(networks, times, strict=True))
            for network, of_one in turn if len(times[0]) % 2 else reversed(turn):
                start = time.perf_counter()
                run(network)
                of_one.append(time.perf_counter() - start)
    # The first pass of each loads code and makes tables.
    taken = np.array(times)[:, 1:]
    low, middle, high = np.quantile(taken / taken[0], [0.25, 0.5, 0.75], axis=1)
    return [
        Cost(
            parameters=fact["parameters"],
            macs=fact["macs"],
            milliseconds=1e3 * float(np.median(taken[index])),
            ratio=(float(low[index]), float(middle[index]), float(high[index])),
        )
        for index, fact in enumerate(facts)
    ]


def _report(
    application: Application[Any, Any, M],
    models: tuple[M, M],
    data: Any,
    split: str,
    done: Sequence[Sequence[Rewritten[nn.Module]]],
) -> dict[str, Any]:
    """What changed: by pass, in cost (of the first network), and in the metrics of the split."""
    before, after = (model.networks[0] for model in models)
    scored = [application.score(model, data, split) for model in models]
    found = costs([before, after], application.probe(models[0], data, split))
    return {
        "passes": [_pass_facts([of_one[index] for of_one in done]) for index in range(len(done[0]))],
        "networks": len(done),
        "threads": torch.get_num_threads(),
        "cost": {name: dataclasses.asdict(cost) for name, cost in zip(("before", "after"), found, strict=True)},
        "split": split,
        "metrics": {name: _metric_facts(name, *scored) for name in scored[0].measures},
    }


def _pass_facts(of_each: Sequence[Rewritten[nn.Module]]) -> dict[str, Any]:
    """One pass over all networks: the largest changes."""
    changes = [[each.change64 or 0.0, each.change32 or 0.0] for each in of_each]
    largest = np.max(np.array(changes), axis=0)
    return {
        "name": of_each[0].rewrite.name,
        "status": of_each[0].status,
        "change64": float(largest[0]),
        "change32": float(largest[1]),
        "decisions": [dict(each.rewrite.decision) for each in of_each],
    }


def _metric_facts(name: str, before: Scored, after: Scored) -> dict[str, Any]:
    old, new = before.measures[name], after.measures[name]
    change = paired(new.metric, new.truth, new.prediction, old.prediction, groups=before.groups, strata=before.strata)
    return {
        "before": old.value,
        "after": new.value,
        "change": change.value,
        "low": change.low,
        "high": change.high,
        "greater_is_better": old.metric.greater_is_better,
    }


def _lines(report: Mapping[str, Any]) -> list[str]:
    """The report for a terminal."""
    networks, lines = report["networks"], []
    for each in report["passes"]:
        of_all = f" in each of {networks} networks" if networks > 1 else ""
        moved = f"outputs moved by {each['change64']:.2g} in float64, {each['change32']:.2g} in float32"
        lines.append(f"{each['name']}{of_all}: {each['status']}; {moved}, of the largest output")
    old, new = report["cost"]["before"], report["cost"]["after"]
    lines.append(f"  {'':<14}{'before':>14}{'after':>14}{'ratio':>8}")
    for name, words in (("parameters", "parameters"), ("macs", "multiply-adds"), ("milliseconds", "ms a pass")):
        a, b = old[name], new[name]
        if name == "milliseconds":
            low, middle, high = new["ratio"]
            lines.append(f"  {words:<14}{a:>14,.2f}{b:>14,.2f}{middle:>8.3f}  quartiles {low:.3f} to {high:.3f}")
        else:
            lines.append(f"  {words:<14}{a:>14,d}{b:>14,d}{b / a if a else 1.0:>8.3f}")
    for name, each in report["metrics"].items():
        arrow = "↑" if each["greater_is_better"] else "↓"
        spread = f"{each['change']:+.3g} [{each['low']:+.3g}, {each['high']:+.3g}]"
        lines.append(f"  {name + ' ' + arrow:<14}{each['before']:>14.4g}{each['after']:>14.4g}  {spread}")
    threads = f"{report['threads']} thread{'s' * (report['threads'] != 1)}"
    lines.append(f"  costs: of one network, {threads}; metrics: {report['split']} split, 95 % intervals")
    return lines


def task_of(argv: Sequence[str]) -> str:
    """The task of the run that a command line names.

    Raises:
        InputError: it names no run.
    """
    if not argv or argv[0].startswith("-"):
        mend = "manyformer rewrite RUN --pass NAME --out RUN2"
        raise InputError("names no run", where="manyformer rewrite", mend=mend)
    return RunDirectory.task(argv[0])
