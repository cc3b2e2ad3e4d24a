"""What a person sees while a model trains: a bar on a terminal, a plain line now and then elsewhere, or nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from core.errors import InputError

ProgressName = Literal["auto", "off", "plain", "bar"]

SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_FRAMES = 0.2


@runtime_checkable
class Progress(Protocol):
    """Told of a run by :func:`core.training.fit`; ``step`` is called at every step and must be cheap."""

    def start(self, *, step: int, total: int, max_seconds: float | None) -> None:
        """A run begins at ``step`` of at most ``total`` steps, and may take ``max_seconds``."""

    def step(self, step: int, loss: float) -> None:
        """A step was taken, the ``step``-th."""

    def evaluated(self, record: Mapping[str, Any], improved: bool) -> None:
        """An epoch was finished; ``record`` is its line of the history."""

    def close(self, summary: str) -> None:
        """The run ended, as ``summary`` says."""


class Silent:
    """Nothing at all."""

    def start(self, *, step: int, total: int, max_seconds: float | None) -> None:
        """Nothing."""

    def step(self, step: int, loss: float) -> None:
        """Nothing."""

    def evaluated(self, record: Mapping[str, Any], improved: bool) -> None:
        """Nothing."""

    def close(self, summary: str) -> None:
        """Nothing."""


class Clock:
    """How far a run is, and how long it will still take: by its steps, or by its minutes if they end first."""

    def __init__(self, step: int, total: int, max_seconds: float | None) -> None:
        self._first, self.total, self._max_seconds = step, total, max_seconds
        self._started = time.monotonic()

    def remaining(self, step: int) -> float | None:
        """Seconds left; None before the first step.

        Speed is the mean over this call, evaluations included.
        """
        elapsed = time.monotonic() - self._started
        if step <= self._first:
            return None
        by_steps = elapsed / (step - self._first) * (self.total - step)
        return by_steps if self._max_seconds is None else min(by_steps, max(0.0, self._max_seconds - elapsed))


@runtime_checkable
class Stream(Protocol):
    """Where lines can be written: standard error, an open file, what a notebook puts in their place."""

    def write(self, text: str, /) -> Any:
        """Write the text."""

    def flush(self) -> Any:
        """Let it be seen."""


class Plain:
    """A line every ten seconds, and one for the end: for log files and pipes; no control characters.

    Args:
        stream: where lines go; standard error by default.
        every: seconds between lines.
    """

    def __init__(self, stream: Stream | None = None, every: float = SECONDS_BETWEEN_LINES) -> None:
        self._stream, self._every = stream, every
        self._news = ""

    def start(self, *, step: int, total: int, max_seconds: float | None) -> None:
        """Begin counting."""
        self._clock = Clock(step, total, max_seconds)
        self._spoke = time.monotonic()

    def step(self, step: int, loss: float) -> None:
        """A line, when one is due."""
        now = time.monotonic()
        if now - self._spoke >= self._every:
            self._spoke = now
            left = duration(self._clock.remaining(step))
            self._say(f"step {step}/{self._clock.total}, loss {loss:.4g}, {left} left{self._news}")

    def evaluated(self, record: Mapping[str, Any], improved: bool) -> None:
        """Kept for the next line."""
        self._news = f"; {describe(record)}{' (best)' if improved else ''}"

    def close(self, summary: str) -> None:
        """The last line."""
        self._say(f"{summary}{self._news}")

    def _say(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)


class Bar:
    """One bar a run, drawn with Rich on standard error."""

    def start(self, *, step: int, total: int, max_seconds: float | None) -> None:
        """Draw the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._clock = Clock(step, total, max_seconds)
        self._news = ""
        self._drawn = 0.0
        self._step = step
        whole, rest = Column(no_wrap=True, min_width=2 * len(str(total)) + 1), Column(no_wrap=True, ratio=1)
        self._bar = RichProgress(
            TextColumn("{task.completed}/{task.total}", table_column=whole),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[left]} left", table_column=Column(no_wrap=True, min_width=9)),
            TextColumn("loss {task.fields[loss]}  {task.fields[news]}", table_column=rest),
            console=Console(stderr=True),
            expand=True,
            auto_refresh=False,  # no thread: steps come often enough
        )
        self._line = self._bar.add_task("", total=total, completed=step, left="?", loss="-", news="")
        self._bar.start()

    def step(self, step: int, loss: float) -> None:
        """Redraw, a few times a second."""
        now, self._step = time.monotonic(), step
        if now - self._drawn >= _SECONDS_BETWEEN_FRAMES:
            self._drawn = now
            left = duration(self._clock.remaining(step))
            self._bar.update(self._line, completed=step, left=left, loss=f"{loss:.4g}", news=self._news, refresh=True)

    def evaluated(self, record: Mapping[str, Any], improved: bool) -> None:
        """Shown right of the bar."""
        self._news = describe(record) + (" (best)" if improved else "")

    def close(self, summary: str) -> None:
        """Leave the bar as it ended, and the summary below it."""
        left = duration(self._clock.remaining(self._step))
        self._bar.update(self._line, completed=self._step, left=left, news=self._news, refresh=True)
        self._bar.stop()
        self._bar.console.print(f"{summary}; {self._news}".rstrip("; "), markup=False, highlight=False, soft_wrap=True)


def choose(progress: ProgressName | Progress) -> Progress:
    """The progress of that name; ``auto`` is a bar on a terminal and plain lines elsewhere.

    Raises:
        InputError: no such name.

    >>> type(choose("off")).__name__
    'Silent'
    """
    if not isinstance(progress, str):
        return progress
    if progress == "auto":
        progress = "bar" if sys.stderr.isatty() else "plain"
    table: dict[str, type[Progress]] = {"off": Silent, "plain": Plain, "bar": Bar}
    if progress not in table:
        raise InputError(f"no progress {progress!r}", mend=f"known: auto, {', '.join(table)}")
    return table[progress]()


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725.2), duration(59.9), duration(None)
    ('1:02:06', '1:00', '?')
    """
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def describe(record: Mapping[str, Any]) -> str:
    """The epoch and its metrics in a few words.

    >>> describe({"epoch": 3, "step": 60, "seconds": 1.5, "train_loss": 0.25, "auc": 0.91234})
    'epoch 3: train_loss 0.25, auc 0.9123'
    """
    metrics = (f"{name} {value:.4g}" for name, value in record.items() if name not in ("epoch", "step", "seconds"))
    return f"epoch {record['epoch']}: {', '.join(metrics)}"
