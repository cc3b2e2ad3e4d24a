"""Processes that train one model together.

A process belongs to a group where a launcher says so by the environment that ``torchrun`` sets; :func:`together` joins
it, and :func:`core.training.fit` within that block trains with the others. Elsewhere a process is a group of one, in
which nothing here costs or changes anything.

What one process alone would decide (by its clock, on a signal) is decided by all, or by the first one, of rank 0, which
also is the one that writes and speaks. The exchanges below are of a few numbers, over the processors' own connection
(gloo), whatever the devices.

The ends, of which a person shall read one line, not one of each process:

- The first process fails: it says so under a key of the launcher's store, and leaves. The others find their connection
  closed, look the key up, and leave with the same status and no word.
- Another one fails of its own: the first says that a process was lost; the other says why.
- One is killed: the connections of the others break, or their next exchange takes longer than :data:`TIMEOUT`.

Whatever happens, what was saved last is intact.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Literal, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from core.errors import InputError
from core.training.interrupt import Interrupted

Strategy = Literal["ddp", "fsdp"]
"""``ddp`` keeps the whole model in every process; ``fsdp`` divides weights, gradients and optimiser among them."""

TIMEOUT = timedelta(minutes=10)
"""The longest that a process waits for the others."""
LAUNCHER = "MANYFORMER_LAUNCHER"
"""Variable with the process id of our own launcher, which speaks for lost processes in their stead."""
LOST = 75
"""Status, between processes, of one that left because another had."""

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_VERDICT = "manyformer/status"
_SECONDS_FOR_VERDICT = 10
_GATE = "manyformer/gate"
_SECONDS_BETWEEN_LOOKS = 0.05


class LostProcess(InputError):
    """Another process of the group is gone."""


class Group:
    """The processes that train together, as one of them sees them; all must call each method alike.

    Args:
        rank: of this process, from 0.
        size: how many they are.
        strategy: how they divide the work.
        store: of the launcher.

    >>> Group().total([1.0, 2.0])
    [1.0, 2.0]
    """

    def __init__(
        self, rank: int = 0, size: int = 1, strategy: Strategy = "ddp", store: dist.Store | None = None
    ) -> None:
        self.rank, self.size, self.strategy = rank, size, strategy
        self._store, self._gates = store, 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes."""
        if self.size == 1:
            return [*values]
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def first(self, values: Sequence[float]) -> list[float]:
        """Those of the first process; the others give as many."""
        if self.size == 1:
            return [*values]
        given = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(given, src=0)
        return [float(value) for value in given.tolist()]

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block, however long it takes, and then the others do."""
        if self._store is None:
            yield
            return
        self._gates += 1
        gate = f"{_GATE}-{self._gates}"
        if self.rank > 0:
            _told(self._store, gate, math.inf)
        try:
            yield
        finally:
            if self.rank == 0:
                self._store.set(gate, "open")  # where it failed the others shall come to know

    @property
    def is_orphaned(self) -> bool:
        """Whether our own launcher is gone, and nobody else would end this process."""
        return self.size > 1 and LAUNCHER in os.environ and os.getppid() != int(os.environ[LAUNCHER])


_ALONE = Group()
_CURRENT: ContextVar[Group] = ContextVar("group", default=_ALONE)
_LEFT = False


def current() -> Group:
    """The group of this process; of one outside :func:`together`."""
    return _CURRENT.get()


def launched() -> int | None:
    """How many processes a launcher has started to train together; None where there is no launcher.

    >>> launched()
    """
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _LAUNCHED) else None


@contextmanager
def together(strategy: Strategy = "ddp") -> Iterator[Group]:
    """Train together with the processes that a launcher started beside this one; alone where there is none.

    torch's default process group is made here and ended with the block, unless it exists already.

    Raises:
        InputError: there are more processes than GPUs.
        LostProcess: another process is gone.
        SystemExit: this process is not the first, and the first has said what there is to say.
    """
    if (launched() or 1) == 1:
        yield _ALONE
        return
    check_gpus(int(os.environ["LOCAL_WORLD_SIZE"]))
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    group = Group(rank, size, strategy, store)
    ours = not dist.is_initialized()
    token = _CURRENT.set(group)
    try:
        with lost_is_told(group):
            if ours:
                _connect(store, group)
            yield group
    except BaseException as error:
        # The process group is left as it is: to take it down would wait for those who are gone.
        _leave(error, group, store)
    finally:
        _CURRENT.reset(token)
    if ours:
        dist.destroy_process_group()


def check_gpus(processes: int) -> None:
    """Each process on this machine needs a GPU of its own, where there are any.

    Raises:
        InputError: there are fewer.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        mend = f"use at most {gpus}, or CUDA_VISIBLE_DEVICES= to train on the processors"
        raise InputError(f"{processes} processes need as many GPUs, and there {_are(gpus)}", mend=mend)


@contextmanager
def lost_is_told(group: Group) -> Iterator[None]:
    """Errors of a broken connection, in words.

    Raises:
        LostProcess: in their place.
    """
    try:
        yield
    except RuntimeError as error:
        if group.size == 1 or not _is_of_connection(error):
            raise
        mend = "what was saved last is intact: the same command goes on from there"
        raise LostProcess(f"another of the {group.size} processes of this training is gone", mend=mend) from error


def _connect(store: dist.Store, group: Group) -> None:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=store,
        rank=group.rank,
        world_size=group.size,
        timeout=TIMEOUT,
    )


def _is_of_connection(error: RuntimeError) -> bool:
    # gloo has no type of its own; its messages begin with the source file.
    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def _leave(error: BaseException, group: Group, store: dist.Store) -> NoReturn:
    """End this process's part with ``error``: the first tells the others its status, the others follow it."""
    global _LEFT
    _LEFT = True
    lost = LOST if isinstance(error, LostProcess) and LAUNCHER in os.environ else None
    if group.rank == 0:
        with suppress(RuntimeError):
            store.set(_VERDICT, str(lost or _status(error)))
    elif _status(error) != 1:
        # A training that was interrupted is saved by the first, which may take long.
        seconds = TIMEOUT.total_seconds() if isinstance(error, Interrupted) else _SECONDS_FOR_VERDICT
        with suppress(RuntimeError):
            verdict = _told(store, _VERDICT, seconds)
            if verdict is not None:
                raise SystemExit(int(verdict)) from error
    if lost is not None:
        raise SystemExit(lost) from error
    raise error


def is_left() -> bool:
    """Whether this process went out of a group that it could not take down.

    The group's threads are running then, and may want the interpreter when it is gone, which ends the process with
    words and a status of their own. Such a process leaves without an orderly end, as :func:`core.command.run` does.
    """
    return _LEFT


def _told(store: dist.Store, key: str, seconds: float) -> bytes | None:
    """What another process has written, or writes within some seconds; a wait of the store's own hears no signals."""
    limit = time.monotonic() + seconds
    while not store.check([key]):
        if time.monotonic() > limit:
            return None
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return bytes(store.get(key))


def _status(error: BaseException) -> int:
    """What a command that ends so returns."""
    if isinstance(error, InputError):
        return 2
    return 130 if isinstance(error, Interrupted | KeyboardInterrupt) else 1


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
