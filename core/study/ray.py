"""The queue on Ray: the same runs with the same records, on as many machines as a cluster has.

Ray decides where and when. A run is done there as it is here, in a process of its own under the worker, so that its
crash is an event in its log. All machines see the study's folder and the data under the same paths.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.command import require
from core.study.isolation import GRACE, alone, await_server, prepare
from core.study.queue import Listener, Stopped
from core.study.worker import Job

LOCAL = "local"
"""Address of a cluster of this machine alone, which ends with the program."""


def run_on_ray(jobs: Sequence[Job], address: str, listener: Listener) -> None:
    """Performs the jobs, begun in their order.

    Raises:
        InputError: Ray is not installed.
        Stopped: a process was told to stop.
        KeyboardInterrupt: after all processes were told to save and leave.
    """
    ray: Any = require("ray", "ray")
    where: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {"address": address}
    ray.init(log_to_driver=False, logging_level="warning", **where)
    threads = jobs[0].brief.threads if jobs else 1
    remote = ray.remote(num_cpus=threads, max_retries=0)(_perform)
    waiting = {remote.remote(_anywhere(job), os.getcwd()): job for job in jobs}
    listener.start()
    try:
        while waiting:
            (ready, *_), _ = ray.wait([*waiting], num_returns=1)
            job = waiting.pop(ready)
            try:
                stopped = ray.get(ready)
            except ray.exceptions.RayError as error:
                job.fail("failed", {"reason": " ".join(str(error).split())[:300]})
                stopped = False
            if stopped:
                raise Stopped
            listener.ended(job)
        listener.close()
    except BaseException:
        for each in waiting:
            ray.cancel(each)
        if waiting:
            ray.wait([*waiting], num_returns=len(waiting), timeout=GRACE)
        raise
    finally:
        ray.shutdown()


def _anywhere(job: Job) -> Job:
    return dataclasses.replace(job, brief=dataclasses.replace(job.brief, study=Path(job.brief.study).resolve()))


def _perform(job: Job, folder: str) -> bool:
    """On a worker of Ray, which ``ray.cancel`` interrupts; ``folder`` is where relative paths begin."""
    os.chdir(folder)
    prepare([type(job.brief.application).__module__])
    await_server()
    return alone(dataclasses.replace(job, launched=time.monotonic()))
