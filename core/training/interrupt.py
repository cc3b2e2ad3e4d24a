"""SIGTERM and Ctrl-C: finish the step, save, leave.

The first signal is noted and acted on between two steps. A second one does at once what it would have done without us;
where several processes train together, one within two seconds of the first counts as the same, since whoever ends such
a group (a terminal, a batch system, a launcher that hands signals on) may well tell each process twice.
Signals can only be handled in a program's main thread; elsewhere nothing is installed.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """Training was stopped by a signal, after its state was saved.

    Attributes:
        directory: where the state is; calling ``fit`` with it goes on. None when the run had no directory.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        super().__init__(f"interrupted; the state is saved in {directory}" if directory else "interrupted")


class SecondInterrupt(BaseException):
    """A second Ctrl-C, on its way out through an engine that treats KeyboardInterrupt in its own manner."""


class Signals:
    """Which signal has arrived, if any.

    Args:
        echo_seconds: after the first signal, how long others count as the same.
    """

    def __init__(self, echo_seconds: float = 0.0) -> None:
        self.arrived: int | None = None
        self._echo_seconds, self._first_at = echo_seconds, -math.inf
        self._previous: dict[int, signal._HANDLER] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; hand the second one on."""
        if self.arrived is None:
            self.note(number)
            return
        if time.monotonic() - self._first_at < self._echo_seconds:
            return
        previous = self._previous[number]
        if previous is signal.default_int_handler:
            raise SecondInterrupt
        signal.signal(number, previous)
        signal.raise_signal(number)

    def note(self, number: int) -> int:
        """Let a signal have arrived, unless one has already; the one that has."""
        if self.arrived is None:
            self.arrived, self._first_at = number, time.monotonic()
        return self.arrived

    def install(self) -> None:
        """Take the signals over, except those that the program ignores (as under nohup) or that C code handles."""
        for number in SIGNALS:
            previous = signal.getsignal(number)
            if previous not in (signal.SIG_IGN, None):
                self._previous[number] = previous
        self.retake()

    def retake(self) -> None:
        """Take them again, from an engine that has put a handler of its own before ours."""
        for number in self._previous:
            signal.signal(number, self.handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)


@contextmanager
def noted(echo_seconds: float = 0.0) -> Iterator[Signals]:
    """Signals within the block are noted in the object given; a second Ctrl-C leaves as KeyboardInterrupt."""
    signals = Signals(echo_seconds)
    main = threading.current_thread() is threading.main_thread()
    try:
        if main:
            signals.install()
        yield signals
    except SecondInterrupt:
        raise KeyboardInterrupt from None
    finally:
        if main:
            signals.restore()
