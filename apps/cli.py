"""The `manyformer` command: names of tasks, each imported only when it is asked for.

::

    manyformer                        the tasks
    manyformer tabular                the verbs of a task
    manyformer tabular train ...      the same as python -m apps.tabular.prediction.train ...
    manyformer compare tabular ...    many runs of a task: which settings help
    manyformer rewrite RUN ...        a trained model made smaller, faster or adaptable
    manyformer blocks                 what networks are made of
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from core.command import require, run, say
from core.errors import InputError, nearest


class Task(NamedTuple):
    """A row of the table of tasks."""

    module: str
    """The package that holds the verbs."""
    extra: str
    """The extra that installs what it needs."""
    needs: tuple[str, ...]
    """Modules of that extra."""
    line: str
    """What it does."""


TASKS = {
    "tabular": Task(
        "apps.tabular.prediction", "tabular", ("pandas", "pyarrow"), "classes or numbers from the columns of a table"
    ),
    "asr": Task("apps.asr", "asr", ("torchaudio", "soundfile", "sentencepiece"), "words from recordings of speech"),
    "segmentation": Task(
        "apps.vision.segmentation", "segmentation", ("cv2",), "classes of pixels, in a world without labels"
    ),
}
VERBS = {
    "train": "fit a model and save it",
    "evaluate": "score a model, with intervals and a report",
    "predict": "apply a model to new data",
    "check": "say everything that is wrong with the data",
    "info": "parameters, operations and blocks of a model",
    "export": "write a model for other programs, and check that it says the same there",
}
"""All that a task may have; it has those of which it has a module."""
STUDIES = {
    "compare": "train with each of several settings and say which helped",
    "tune": "search for the settings with the best validation number",
}
"""Verbs of `core.study`, which take a task in place of belonging to one."""
CATALOGUE = {"blocks": "say what every block is, can do and costs, and which tasks take it"}
"""Verbs that ask all tasks."""
REWRITE = {"rewrite": "make the model of a run smaller, faster or adaptable, and say what that changed"}
"""The verb that finds its task in a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # `run` takes the word away; the verb's own `run` needs it too.
    debug = [word for word in words if word == "--debug"]
    return run(lambda rest: _main(rest, debug), words)


def _main(argv: list[str], debug: list[str]) -> int:
    if argv[:1] == ["--version"]:
        say(f"manyformer {_version()}")
    elif not argv or argv[0] in ("-h", "--help"):
        _list("usage: manyformer TASK VERB ...", {name: task.line for name, task in TASKS.items()})
        _list("\nor: manyformer STUDY TASK ...", STUDIES)
        _list("\nor: manyformer ...", {**REWRITE, **CATALOGUE})
    elif argv[0] in STUDIES:
        _study(argv[0], argv[1:])
    elif argv[0] in CATALOGUE:
        importlib.import_module("core.application.blocks").blocks(applications(), argv[1:])
    elif argv[0] in REWRITE:
        _rewrite(argv[1:])
    elif argv[0] not in TASKS:
        known = [*TASKS, *STUDIES, *REWRITE, *CATALOGUE]
        raise InputError(f"{argv[0]!r} is not a task", where="manyformer", mend=nearest(argv[0], known))
    else:
        return _task(argv[0], argv[1:], debug)
    return 0


def _task(name: str, argv: list[str], debug: list[str]) -> int:
    task = TASKS[name]
    verbs = {verb: line for verb, line in VERBS.items() if _has(task, verb)}
    if not argv or argv[0] in ("-h", "--help"):
        _list(f"usage: manyformer {name} VERB ...    (--help after the verb lists its options)", verbs)
        return 0
    if argv[0] not in verbs:
        others = [other for other in TASKS if argv[0] in VERBS and _has(TASKS[other], argv[0])]
        known = f"{', '.join(others)} can; known here: {', '.join(verbs)}" if others else nearest(argv[0], [*verbs])
        what = f"{argv[0]!r} is not a verb{' of this task' if others else ''}"
        raise InputError(what, where=f"manyformer {name}", mend=known)
    _require(task)
    verb = importlib.import_module(f"{task.module}.{argv[0]}")
    status: int = verb.main([*argv[1:], *debug])
    return status


def _has(task: Task, verb: str) -> bool:
    return importlib.util.find_spec(f"{task.module}.{verb}") is not None


def _study(verb: str, argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        usage = f"usage: manyformer {verb} TASK ...    (--help after the task lists its options)"
        _list(usage, {name: task.line for name, task in TASKS.items()})
        return
    if argv[0] not in TASKS:
        raise InputError(f"{argv[0]!r} is not a task", where=f"manyformer {verb}", mend=nearest(argv[0], [*TASKS]))
    task = TASKS[argv[0]]
    _require(task)
    getattr(importlib.import_module("core.study"), verb)(_application(task), argv[1:])


def _rewrite(argv: list[str]) -> None:
    verb = importlib.import_module("core.application.rewrite")
    if argv and argv[0] in ("-h", "--help"):
        verb.parse_arguments(verb.RewriteArguments, argv, prog="manyformer rewrite")
    name = verb.task_of(argv)
    if name not in TASKS:
        raise InputError(f"is a run of {name!r}, which is not a task here", where=argv[0])
    _require(TASKS[name])
    verb.rewrite_run(_application(TASKS[name]), argv)


def applications() -> dict[str, Any]:
    """The applications by the names of their tasks; None in place of one whose extra is not installed."""
    return {name: _application(task) if _installed(task) else None for name, task in TASKS.items()}


def _application(task: Task) -> Any:
    return importlib.import_module(f"{task.module}.application").APPLICATION


def _installed(task: Task) -> bool:
    try:
        _require(task)
    except InputError:
        return False
    return True


def _require(task: Task) -> None:
    for needed in task.needs:
        require(needed, task.extra)


def _list(usage: str, rows: dict[str, str]) -> None:
    width = max(map(len, rows), default=0)
    say("\n".join([usage, "", *(f"  {name:{width}}  {line}" for name, line in rows.items())]))


def _version() -> str:
    try:
        return importlib.metadata.version("manyformer")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
