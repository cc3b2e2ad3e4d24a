"""The log of one run: a file that only grows, one JSON object a line, read the same after any kill.

::

    {"event": "started", ...}       once a process that took the run up
    {"event": "finished", ...}      or "diverged", "failed", "pruned": how it ended

A line that was cut by a kill is no event; the next one begins on a line of its own. Whoever works on the run holds the
file locked: a process that was told to die, and has not yet, keeps the next one waiting, never mixed up with.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from core.artefact.disk import cannot_write, sync_folder
from core.errors import InputError
from core.study.records import Status

PATIENCE = 60.0
"""Seconds to wait for a process that still holds the run."""
_ENDS = (*get_args(Status), "pruned")


class Journal:
    """A run's log, held by this process; made by :meth:`held`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    @classmethod
    @contextmanager
    def held(cls, path: Path, *, patience: float = PATIENCE) -> Iterator[Journal]:
        """The log at ``path``, made when missing, locked for this process.

        Raises:
            InputError: another process holds it for longer than ``patience`` seconds, or it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if new:
                sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            _lock(descriptor, path, patience)
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    def events(self) -> list[dict[str, Any]]:
        """What happened so far."""
        return read_events(self.path)

    def append(self, event: str, facts: Mapping[str, Any] | None = None) -> None:
        """Adds an event, which is on the disk when this returns.

        Raises:
            InputError: the disk is full, for example; a part that was written is no event.
        """
        line = (json.dumps(finite({"event": event, **(facts or {})}), allow_nan=False) + "\n").encode()
        try:
            size = os.fstat(self._descriptor).st_size
            cut = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
            rest = memoryview(b"\n" + line if cut else line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise cannot_write(self.path, error) from error


def finite(value: Any) -> Any:
    """Plain data with null for numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lock(descriptor: int, path: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise InputError(
                    "another process is at this run", where=str(path), mend="wait until it ends"
                ) from error
            time.sleep(0.02)
        except OSError:
            return  # a file system without locks


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a log, those that were cut left out; none where there is no file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    return [event for event in map(_event, lines) if event is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def ending(events: Sequence[Mapping[str, Any]], *, retry_failed: bool = False) -> Mapping[str, Any] | None:
    """How a run ended; None for one that has not, or that failed and is to be tried again.

    Of a failure and a later success the latter counts, and whatever comes after a success does not.

    >>> ending([{"event": "started"}, {"event": "failed"}, {"event": "started"}, {"event": "finished"}])
    {'event': 'finished'}
    >>> ending([{"event": "started"}, {"event": "failed"}], retry_failed=True)
    """
    ends = [event for event in events if event["event"] in _ENDS]
    final = next((event for event in ends if event["event"] == "finished"), ends[-1] if ends else None)
    return None if final is not None and retry_failed and final["event"] == "failed" else final
