"""SIGTERM and Ctrl-C: finish the step, save, leave.

The first signal is noted and acted on between two steps. A second one does at once what it would have done without us.
Signals can only be handled in a program's main thread; elsewhere nothing is installed.
"""

from __future__ import annotations

import signal
import threading
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
    """Which signal has arrived, if any."""

    def __init__(self) -> None:
        self.arrived: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; hand the second one on."""
        if self.arrived is None:
            self.arrived = number
            return
        previous = self._previous[number]
        if previous is signal.default_int_handler:
            raise SecondInterrupt
        signal.signal(number, previous)
        signal.raise_signal(number)

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
def noted() -> Iterator[Signals]:
    """Signals within the block are noted in the object given; a second Ctrl-C leaves as KeyboardInterrupt."""
    signals = Signals()
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
