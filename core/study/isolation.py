"""Processes of a study: a crash of one is an event in its log, and none outlives the program that started it.

They are forked from a server that has imported what they need once. The server computes nothing, so that no thread pool
is copied in the middle of its work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any, Protocol, runtime_checkable

from core.study.worker import INTERRUPTED

PRELOADED = ("core.training.adapter", "core.study.worker")
"""Imported by the server for every application, its own modules besides."""
GRACE = 60.0
"""Seconds that processes which were told to stop have for saving."""
_MOMENT = 0.5
_CONTEXT = multiprocessing.get_context("forkserver")


@runtime_checkable
class Work(Protocol):
    """What a process does; goes there by way of a pipe."""

    def perform(self) -> int:
        """Do it, writing down how it ended; returns the exit status."""

    def fail(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write down an end that the process did not live to."""


def prepare(modules: Sequence[str]) -> None:
    """Starts the server, which imports the modules while the caller does other things. Once started it stays as it is.

    Args:
        modules: by name; those that cannot be imported are left out.
    """
    forkserver.set_forkserver_preload([*PRELOADED, *modules])
    with _without_interrupts():
        forkserver.ensure_running()


def await_server() -> None:
    """Returns when the server takes work: its imports are then no part of the first run's time."""
    process = _CONTEXT.Process(target=_nothing)
    process.start()
    process.join()
    process.close()


def _nothing() -> None:
    """To see that there is a server."""


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A program begun within the block ignores Ctrl-C from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def launch(work: Work) -> ForkServerProcess:
    """Begins the work in a process of its own, which dies with the caller; keep the object until it has ended."""
    process = _CONTEXT.Process(target=_main, args=(work,))
    process.start()
    return process


def _main(work: Work) -> None:
    # Ctrl-C reaches every process of a terminal; the one that started us says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    sys.exit(work.perform())


def _die_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def settle(work: Work, process: ForkServerProcess) -> bool:
    """Takes note of the end of a process; whether it was told to stop, so that the work is not done.

    An end by a signal is looked at twice: where everything is being killed, the caller's turn comes within a moment,
    and the work has not failed.
    """
    process.join()
    status = process.exitcode
    process.close()
    if status in (INTERRUPTED, -signal.SIGTERM):
        return True
    if status != 0:
        time.sleep(_MOMENT)
        work.fail("failed", {"reason": _reason(status)})
    return False


def _reason(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        hint = "; was there not enough memory?" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process left with status {status}"


def alone(work: Work) -> bool:
    """Launches, waits and settles; Ctrl-C stops the process first."""
    process = launch(work)
    try:
        process.join()
    except BaseException:
        stop([process])
        raise
    return settle(work, process)


def stop(processes: Sequence[ForkServerProcess]) -> None:
    """Lets the processes save and leave; those that take too long are killed, and all by a second Ctrl-C."""
    try:
        for process in processes:
            process.terminate()
        until = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()
