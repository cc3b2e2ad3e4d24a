"""Several processes of one command on this machine: ``--devices N``.

Each is started with the environment that ``torchrun`` sets, and does all that one process would; they find one another
through a store that this process keeps (:mod:`core.training.group`). The first, of rank 0, has our standard output and
error; what the others say is shown only where one of them fails on its own.

======================================  ==========================================================================
what happens                            what the launcher does
======================================  ==========================================================================
SIGTERM, Ctrl-C                         tells every process, once; they finish the step, save and leave: status 130
the first fails                         it has said why; ends the others; its status
another fails on its own                ends all; its words and its status
one is killed                           ends all; one line, with what was saved last: status 2
the launcher itself is killed           the processes notice, save and leave
======================================  ==========================================================================
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

import torch.distributed as dist

from core.errors import InputError
from core.training.checkpoint import saved_step
from core.training.group import LAUNCHER, LOST

LEAVE_SECONDS = 5.0
"""How long processes may take to leave by themselves after one of them failed; then they are told to."""
KILL_SECONDS = 10.0
"""How long they may take after that; then they are killed."""
_BETWEEN_LOOKS = 0.05


def own_command(module: str, argv: Sequence[str]) -> list[str]:
    """The command line that brought us here; that of ``module`` where a program called its ``main`` with ``argv``.

    >>> own_command("apps.example.train", ["--out", "a"])[1:]
    ['-m', 'apps.example.train', '--out', 'a']
    """
    words = [word for word in sys.argv[1:] if word != "--debug"]
    if argv and words[-len(argv) :] == [*argv]:
        return [sys.executable, *sys.orig_argv[1:]]
    return [sys.executable, "-m", module, *argv]


def launch(command: Sequence[str], processes: int, *, last: Path) -> int:
    """Runs ``command`` in so many processes that train together; returns the exit status of them all.

    Args:
        command: the program and its arguments.
        processes: how many.
        last: folder that the states of the run are saved in, for the message.

    Raises:
        InputError: one of them was killed.
        KeyboardInterrupt: they were interrupted before they could save.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    family = _Family(processes)
    try:
        with _handed_on(family):
            for rank in range(processes):
                family.start(command, _variables(rank, processes, store.port))
            family.wait()
        return family.status(last)
    finally:
        family.end()


def _variables(rank: int, processes: int, port: int) -> dict[str, str]:
    """What the environment of one process says of the group, as under ``torchrun``, which also keeps the store."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "GROUP_RANK": 0,
        "MASTER_PORT": port,
        LAUNCHER: os.getpid(),
    }
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        **{name: str(number) for name, number in numbers.items()},
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


class _Family:
    """The processes, in the order of their ranks."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._children: list[subprocess.Popen[bytes]] = []
        self._errors: list[IO[bytes]] = []
        self._ended: list[int] = []
        self._told: list[int] = []
        self._pressed = False

    def start(self, command: Sequence[str], variables: dict[str, str]) -> None:
        """Start the next one; a group of its own keeps the terminal's Ctrl-C to us, who hand it on."""
        first = not self._children
        errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        child = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=None if first else subprocess.DEVNULL,
            stderr=None if first else errors,
            process_group=0,
        )
        self._children.append(child)
        self._errors.append(errors)
        for number in self._told:
            child.send_signal(number)

    def tell(self, number: int, frame: FrameType | None = None) -> None:
        """Hand a signal on."""
        self._told.append(number)
        for child in self._children:
            child.send_signal(number)

    def wait(self) -> None:
        """Until all have ended; those who do not follow one that failed are ended."""
        failed_at: float | None = None
        while len(self._ended) < len(self._children):
            for rank, child in enumerate(self._children):
                if rank not in self._ended and child.poll() is not None:
                    self._ended.append(rank)
            if failed_at is None and self._is_broken():
                failed_at = time.monotonic()
            if failed_at is not None:
                self._press(time.monotonic() - failed_at)
            time.sleep(_BETWEEN_LOOKS)

    def _is_broken(self) -> bool:
        """Whether those who are left have nobody to go on with; after an interruption they may be saving."""
        return 0 in self._ended or any(self._children[rank].returncode not in (0, 130) for rank in self._ended)

    def _press(self, seconds: float) -> None:
        left = [child for child in self._children if child.poll() is None]
        if seconds > LEAVE_SECONDS + KILL_SECONDS:
            for child in left:
                child.kill()
        elif seconds > LEAVE_SECONDS and not self._pressed:
            self._pressed = True
            for child in left:
                child.terminate()

    def end(self) -> None:
        """Leave none behind, whatever happened here."""
        for child, errors in zip(self._children, self._errors, strict=True):
            if child.poll() is None:
                child.kill()
                child.wait()
            errors.close()

    def status(self, last: Path) -> int:
        """The status of all, from what each ended with; see :func:`launch`."""
        codes = [child.returncode for child in self._children]
        if codes[0] >= 0 and codes[0] != LOST:
            return int(codes[0])  # it has said why, if there is anything to say
        if self._told:
            raise KeyboardInterrupt
        guilty = next((rank for rank in self._ended if codes[rank] not in (0, LOST)), None)
        if guilty is not None and codes[guilty] > 0:
            self._errors[guilty].seek(0)
            sys.stderr.write(self._errors[guilty].read().decode(errors="replace"))
            return int(codes[guilty])
        raise _died(guilty, codes, last)


def _died(rank: int | None, codes: Sequence[int], last: Path) -> InputError:
    what = f"the {len(codes)} processes lost one another"
    if rank is not None:
        name = signal.Signals(-codes[rank]).name
        hint = ", as happens where memory runs out" if name == "SIGKILL" else ""
        what = f"process {rank} of {len(codes)} died (killed by {name}{hint})"
    step = saved_step(last)
    saved = "nothing was saved yet" if step is None else f"the last saved state is of step {step}"
    return InputError(what, mend=f"{saved}; the same command goes on")


@contextmanager
def _handed_on(family: _Family) -> Iterator[None]:
    """Signals to this process go to all of the family."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, family.tell)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
