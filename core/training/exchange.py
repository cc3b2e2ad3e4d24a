"""What the processes of a group tell one another once a step: losses, and what none of them may decide alone.

A signal may reach one process only, and clocks differ by a little; had each its own view, some would stop and the
others wait for them. So a signal is everybody's, and the first process's clock is. One process alone asks nobody.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from core.norm.pooled import pooled
from core.training.group import Group
from core.training.interrupt import Signals
from core.training.loader import Loader


class Exchange:
    """The exchanges of one run.

    Args:
        group: the processes.
        signals: which signal has arrived here; all learn of it.
        minutes_up: whether the minutes of the call are used up; asked of the first process.
        save_due: whether the run should be saved; likewise.
    """

    def __init__(
        self, group: Group, signals: Signals, minutes_up: Callable[[], bool], save_due: Callable[[], bool]
    ) -> None:
        self._group, self._signals = group, signals
        self._ask_minutes, self._ask_save = minutes_up, save_due
        self.minutes_up = self.save_due = False
        """As of the last exchange."""
        self.signal: int | None = None
        """The signal that has arrived, in whichever process, as of the last exchange."""

    def totals(self, values: Sequence[float] = ()) -> list[float]:
        """Sums over the processes; and what is said here becomes known."""
        first, signals = self._group.rank == 0, self._signals
        said = (
            signals.arrived is not None or self._group.is_orphaned,
            first and self._ask_minutes(),
            first and self._ask_save(),
        )
        *totals, arrived, minutes, save = self._group.total([*values, *said])
        if arrived:
            self.signal = signals.note(signal.SIGTERM)
        self.minutes_up, self.save_due = bool(minutes), bool(save)
        return totals


class Shares:
    """Which share of a batch's examples is this process's: 1 alone, 0 where it only goes along.

    Args:
        group: the processes.
        loader: whose batches they share; see :meth:`core.training.Loader.stream`.
    """

    def __init__(self, group: Group, loader: Loader) -> None:
        self._group, self._loader = group, loader
        self._sizes: tuple[int, list[int]] = -1, []

    def of(self, epoch: int, batch: int) -> float:
        """The share of that batch."""
        if self._group.size == 1:
            return 1.0
        if self._sizes[0] != epoch:
            self._sizes = epoch, self._loader.sizes(epoch)
        size = self._sizes[1][batch]
        return len(range(self._group.rank, size, self._group.size)) / size

    def pooled(self, share: float) -> AbstractContextManager[None]:
        """Within it batch statistics are those of the whole batch; the examples of a share of 0 are not counted."""
        return nullcontext() if self._group.size == 1 else pooled(rows_count=share > 0)
