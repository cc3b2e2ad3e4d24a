"""The verb ``compare``: does a switch help? A queue of runs, and a page with the answer."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from core.application import Application
from core.command import only_writer
from core.command.environment import environment
from core.study.isolation import alone, await_server, prepare
from core.study.outcome import Tally, report
from core.study.plan import Plan, jobs_of, write_plan
from core.study.question import CompareArguments, Variant, ask, imported_since, known_plan, variants_of
from core.study.queue import Stopped, run_local
from core.study.store import Settled, StudyDirectory, read_settled, write_settled
from core.study.worker import Brief, Decision, Job, has_ended
from core.training import Interrupted


def compare(application: Application[Any, Any, Any], argv: Sequence[str]) -> None:
    """The verb on a command line.

    Args:
        application: what is trained.
        argv: words after ``manyformer compare NAME``.

    Raises:
        InputError: anything wrong with them, or a folder that holds something else.
        Interrupted: stopped by a signal, after the running trainings have saved.
    """
    question = ask(application, with_address(argv))
    directory = StudyDirectory(question.line.out)
    if question.line.report:
        report(application, directory, json=question.line.json)
        return
    before = dict(sys.modules)
    data = application.load(question.source, question.base)
    with only_writer(directory.path):
        known = known_plan(directory, application.config, application.metrics(data))
        plan = question.plan(application, data, known)
        variants = variants_of(application, plan, question.base, data)
        facts, modules = environment(), [type(application).__module__, *imported_since(before)]
        if plan != known:
            write_plan(directory.plan, plan, facts)
        brief = Brief(
            application=application,
            source=question.source,
            digests=plan.digests,
            split=plan.split,
            study=directory.path,
            threads=plan.threads,
            commit=facts["commit"],
            retry_failed=question.line.retry_failed,
            keep=question.line.keep_runs,
        )
        try:
            tally = _run(brief, question.line, plan, variants, modules)
        except (KeyboardInterrupt, Stopped):
            raise Interrupted(directory.path) from None
        report(application, directory, data=data, tally=tally, json=question.line.json)


def with_address(argv: Sequence[str]) -> list[str]:
    """``--ray`` without an address asks for a cluster of its own.

    >>> with_address(["--ray", "--seeds", "2"])
    ['--ray', 'local', '--seeds', '2']
    """
    words = list(argv)
    for i, word in enumerate(words):
        if word == "--ray" and (i + 1 == len(words) or words[i + 1].startswith("--")):
            words[i : i + 1] = ["--ray", "local"]
    return words


def _run(
    brief: Brief, line: CompareArguments, plan: Plan, variants: Sequence[Variant], modules: Sequence[str]
) -> Tally:
    """Does what has not ended; ``modules`` are those that its processes need."""
    keys = {each.arm.name: each.key for each in variants}
    runs = [(keys[arm.name], seed) for arm, seed in jobs_of(plan)]
    due = {run for run in runs if not has_ended(brief, *run)}
    if due:
        prepare(modules)
    configs = {each.key: _settled(brief, plan, each) for each in variants if any(key == each.key for key, _ in due)}
    shares = {each.key: each.share for each in variants}
    jobs = [
        Job(brief=brief, key=key, seed=seed, config=dataclasses.replace(configs[key], seed=seed), share=shares[key])
        for key, seed in runs
        if (key, seed) in due and configs[key] is not None
    ]
    slots = None if line.ray else line.jobs
    names = {each.key: each.arm.name for each in variants}
    tally = Tally(names, metric=plan.metric, runs=len(runs), due=len(jobs), slots=slots)
    if jobs and line.ray is not None:
        from core.study.ray import run_on_ray

        run_on_ray(jobs, line.ray, tally)
    elif jobs:
        await_server()
        run_local(jobs, line.jobs, tally)
    return tally


def _settled(brief: Brief, plan: Plan, variant: Variant) -> Any:
    """The config of an arm, decided now if it was not; None where it cannot be measured."""
    path = brief.directory.arm(variant.key)
    known = read_settled(path, brief.application.config)
    if known is not None:
        return known.config
    if plan.minutes_per_run is None:
        write_settled(path, variant.arm, Settled(config=variant.config, parameters=variant.parameters))
        return variant.config
    runs = tuple(Job(brief=brief, key=variant.key, seed=seed, config=variant.config) for seed in plan.seeds)
    decision = Decision(
        brief=brief,
        arm=variant.arm,
        key=variant.key,
        config=variant.config,
        share=variant.share,
        minutes=plan.minutes_per_run,
        parameters=variant.parameters,
        jobs=tuple(run for run in runs if not has_ended(brief, run.key, run.seed)),
    )
    if alone(decision):
        raise Stopped
    settled = read_settled(path, brief.application.config)
    return None if settled is None else settled.config
