"""The folder of a run: what was asked for, on what, how it went, and what came out.

::

    RUN/config.yaml         the resolved config; usable as --config of another run
    RUN/environment.json    versions, machine, command line, commit
    RUN/data.json           what it learns from (core.command.outcome)
    RUN/metrics.jsonl       one line an epoch
    RUN/outcome.json        what it came to
    RUN/checkpoints/last    to resume from
    RUN/checkpoints/best    to predict with
    RUN/report/index.html   the page of the evaluation
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from core.artefact import replace_file
from core.command import yaml12
from core.command.config import config_to_dict, differences, read_yaml, stored_config
from core.command.environment import environment
from core.command.output import read_facts, to_json
from core.errors import InputError

C = TypeVar("C")
_FORMAT = "manyformer-run"
_CONFIG, _ENVIRONMENT = "config.yaml", "environment.json"


class RunDirectory:
    """A run on disk; made by :meth:`create` or :meth:`open`.

    >>> import tempfile
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Size:
    ...     width: int = 32
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = RunDirectory.create(f"{folder}/a", Size(), task="example")
    ...     RunDirectory.open(f"{folder}/a", task="example").config(Size)
    Size(width=32)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / _CONFIG
        self.environment_file = self.path / _ENVIRONMENT
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.outcome = self.path / "outcome.json"
        self.last = self.path / "checkpoints" / "last"
        self.best = self.path / "checkpoints" / "best"
        self.report = self.path / "report" / "index.html"

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Any, *, task: str) -> RunDirectory:
        """Begins a run, or takes up the one that is there, if it is of the same task and config.

        Raises:
            InputError: the folder holds something else, or a run with another config (the fields are named).
        """
        run = cls(path)
        if run._is_new():
            facts = {"format": _FORMAT, "task": task, **environment()}
            try:
                replace_file(run.environment_file, to_json(facts) + "\n")
                # The config comes last: with it the run exists.
                replace_file(run.config_file, yaml12.dump(config_to_dict(config)))
            except InputError:
                run.discard()
                raise
            return run
        run._check_task(task)
        differing = differences(config_to_dict(run.config(type(config))), config_to_dict(config))
        if differing:
            what = f"this run was begun with another config (it differs in {', '.join(differing)})"
            raise InputError(what, where=str(run.path), mend="use the same settings, or another folder")
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, task: str) -> RunDirectory:
        """A run that exists.

        Raises:
            InputError: there is none, or it is of another task.
        """
        run = cls(path)
        if not run.config_file.is_file():
            raise InputError("is not a run directory", where=str(run.path), mend=f"{_CONFIG} is missing")
        run._check_task(task)
        return run

    @classmethod
    def trained(cls, path: str | os.PathLike[str], *, task: str) -> RunDirectory:
        """A run that has a model to predict with, in ``best``.

        Raises:
            InputError: there is none, it is of another task, or it has none yet.
        """
        run = cls.open(path, task=task)
        if not run.best.is_dir():
            mend = "run the same train command again: it resumes"
            raise InputError("training has not finished, there is no model yet", where=str(path), mend=mend)
        return run

    @staticmethod
    def task(path: str | os.PathLike[str]) -> str:
        """The task that the run in a folder is of.

        Raises:
            InputError: there is none.
        """
        run = RunDirectory(path)
        if not run.config_file.is_file():
            raise InputError("is not a run directory", where=str(run.path), mend=f"{_CONFIG} is missing")
        return str(read_facts(run.environment_file).get("task"))

    def config(self, kind: type[C]) -> C:
        """The config that the run was begun with; of fields that are newer than it, the default."""
        return stored_config(kind, read_yaml(self.config_file), where=str(self.config_file))

    def discard(self) -> None:
        """Takes back what :meth:`create` and ``claim_data`` wrote, for a run that could not begin."""
        # In this order a kill in between leaves a run that learns from nothing yet, or a birth cut short.
        for file in (self.data, self.config_file, self.environment_file):
            file.unlink(missing_ok=True)

    def _is_new(self) -> bool:
        """True when nothing is there, or only what a run killed at its birth leaves."""
        try:
            held = set(os.listdir(self.path))
        except FileNotFoundError:
            return True
        except OSError as error:
            raise InputError(f"cannot be a run directory ({error.strerror})", where=str(self.path)) from error
        if held <= {_ENVIRONMENT, f".{_ENVIRONMENT}.tmp", f".{_CONFIG}.tmp"}:
            return True
        if not {_CONFIG, _ENVIRONMENT} <= held:
            raise InputError("holds other files than a run", where=str(self.path), mend="choose a new or empty folder")
        return False

    def _check_task(self, task: str) -> None:
        facts = read_facts(self.environment_file)
        if facts.get("format") != _FORMAT:
            where = str(self.environment_file)
            raise InputError("was not written by manyformer", where=where, mend="choose a new or empty folder")
        if facts.get("task") != task:
            raise InputError(f"is a run of {facts.get('task')!r}, not of {task!r}", where=str(self.path))


@contextmanager
def only_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the folder ``path``, made when missing, for this process alone; one that is left empty is removed again.

    The lock is the kernel's, on the folder itself: it leaves no file behind, and ends with the process however that
    ends. Where a file system knows no such locks nothing is held.

    Raises:
        InputError: another process holds it, or there can be no such folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_writer(folder), only_writer(folder):
    ...     pass
    Traceback (most recent call last):
        ...
    core.errors.InputError: ...: another process is writing this run; wait until it ends, or choose another folder
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot be a run directory ({error.strerror})", where=str(folder)) from error
    try:
        _lock(descriptor, folder)
        try:
            yield
        finally:
            # Not where somebody removed the folder meanwhile, and perhaps made another in its place.
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), folder.stat()) and not os.listdir(descriptor):
                    folder.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        mend = "wait until it ends, or choose another folder"
        raise InputError("another process is writing this run", where=str(folder), mend=mend) from error
    except OSError:
        return  # a file system without locks
