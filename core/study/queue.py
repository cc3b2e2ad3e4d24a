"""The queue on this machine: some runs at a time, each in its own process, until all have ended."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from typing import Protocol, runtime_checkable

from core.study.isolation import launch, settle, stop
from core.study.worker import Job


@runtime_checkable
class Listener(Protocol):
    """Is told of a queue."""

    def start(self) -> None:
        """The first run begins."""

    def ended(self, job: Job) -> None:
        """A run ended."""

    def close(self) -> None:
        """All have ended."""


class Stopped(Exception):
    """A run was told to stop, and with it the queue."""


def run_local(jobs: Sequence[Job], slots: int, listener: Listener) -> None:
    """Performs the jobs in their order, ``slots`` at a time.

    Raises:
        Stopped: a process was told to stop.
        KeyboardInterrupt: after all processes have saved and left.
    """
    waiting = list(reversed(jobs))
    running: dict[int, tuple[Job, ForkServerProcess]] = {}
    cores = _cores(jobs[0].brief.threads, slots) if jobs else {}
    listener.start()
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                slot = next(slot for slot in range(slots) if slot not in running)
                job = _placed(waiting.pop(), cores.get(slot))
                running[slot] = job, launch(job)
            ready = connection.wait([process.sentinel for _, process in running.values()])
            for slot in [slot for slot, (_, process) in running.items() if process.sentinel in ready]:
                job, process = running.pop(slot)
                if settle(job, process):
                    raise Stopped
                listener.ended(job)
        listener.close()
    except BaseException:
        stop([process for _, process in running.values()])
        raise


def _placed(job: Job, cores: tuple[int, ...] | None) -> Job:
    brief = dataclasses.replace(job.brief, cores=cores)
    return dataclasses.replace(job, brief=brief, launched=time.monotonic())


def _cores(threads: int, slots: int) -> dict[int, tuple[int, ...]]:
    """Cores of its own for each of several slots, where there are enough; none for a single one."""
    known = sorted(os.sched_getaffinity(0))
    if slots == 1 or threads * slots > len(known):
        return {}
    return {slot: tuple(known[slot * threads : (slot + 1) * threads]) for slot in range(slots)}
