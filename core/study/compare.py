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
from core.study.journal import ending, read_events
from core.study.outcome import Tally, report
from core.study.plan import Plan, jobs_of, write_plan
from core.study.question import Question, Variant, ask, imported_since, known_plan, variants_of
from core.study.queue import Stopped, run_local
from core.study.store import Settled, StudyDirectory, read_settled, write_settled
from core.study.worker import Decision, Job, Task
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
        report(application, directory, argv=argv)
        return
    before = dict(sys.modules)
    data = application.load(question.source, question.base)
    with only_writer(directory.path):
        known = known_plan(directory)
        plan = question.plan(application, data, known)
        variants = variants_of(application, plan, question.base, data)
        prepare([type(application).__module__, *imported_since(before)])
        if plan != known:
            write_plan(directory.plan, plan, environment())
        try:
            tally = _run(application, question, plan, variants, directory)
        except (KeyboardInterrupt, Stopped):
            raise Interrupted(directory.path) from None
        report(application, directory, data=data, tally=tally, argv=argv, json=question.line.json)


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
    application: Application[Any, Any, Any],
    question: Question,
    plan: Plan,
    variants: Sequence[Variant],
    directory: StudyDirectory,
) -> Tally:
    line = question.line
    task = Task(
        application=application,
        source=question.source,
        digests=plan.digests,
        split=plan.split,
        study=directory.path,
        threads=plan.threads,
        retry_failed=line.retry_failed,
        keep=line.keep_runs,
    )
    configs = {each.key: _settled(task, plan, each) for each in variants}
    names = {each.key: each.arm.name for each in variants}
    keys = {each.arm.name: each.key for each in variants}
    jobs = [
        Job(task=task, key=keys[arm.name], seed=seed, config=dataclasses.replace(config, seed=seed))
        for arm, seed in jobs_of(plan)
        if (config := configs[keys[arm.name]]) is not None
    ]
    due = [job for job in jobs if ending(read_events(job.log), retry_failed=line.retry_failed) is None]
    tally = Tally(names, runs=len(jobs), due=len(due), slots=None if line.ray else line.jobs)
    if line.ray is None:
        if due:
            await_server()
        tally.start()
        run_local(due, line.jobs, tally.ended)
    else:
        from core.study.ray import run_on_ray

        tally.start()
        run_on_ray(due, line.ray, tally.ended)
    tally.close()
    return tally


def _settled(task: Task, plan: Plan, variant: Variant) -> Any:
    """The config of an arm, decided now if it was not; None where it cannot be measured."""
    path = task.directory.arm(variant.key)
    known = read_settled(path, task.application.config)
    if known is not None:
        return known.config
    if plan.minutes_per_run is None:
        write_settled(path, variant.arm, Settled(config=variant.config, parameters=variant.parameters))
        return variant.config
    runs = tuple(Job(task=task, key=variant.key, seed=seed, config=variant.config) for seed in plan.seeds)
    decision = Decision(
        task=task,
        arm=variant.arm,
        key=variant.key,
        config=variant.config,
        minutes=plan.minutes_per_run,
        parameters=variant.parameters,
        jobs=tuple(run for run in runs if ending(read_events(run.log), retry_failed=task.retry_failed) is None),
    )
    if not decision.jobs:
        return None
    if alone(decision):
        raise Stopped
    settled = read_settled(path, task.application.config)
    return None if settled is None else settled.config
