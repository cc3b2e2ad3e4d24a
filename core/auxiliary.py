"""Losses that blocks add to a task's own: the balance of a router, say.

A block in training calls :func:`contribute`; a task collects what was contributed while its model ran::

    with collected() as extra:
        outputs = model(x)
    loss = task_loss(outputs) + extra.total()

Nothing is kept on the modules: a block that is applied several times contributes each time, a model can be copied and
saved at any moment, and without a collector (in evaluation, in a plain loop that wants none) contributions vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor


class Collected:
    """The losses contributed within a block of :func:`collected`."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def total(self) -> Float[Tensor, ""]:
        """Their sum, with its graph; 0 where there are none."""
        return torch.stack(self.losses).sum() if self.losses else torch.zeros(())


_COLLECTOR: ContextVar[Collected | None] = ContextVar("collector", default=None)


@contextmanager
def collected() -> Iterator[Collected]:
    """Within the block, contributions go to what it gives; an inner block takes its own.

    >>> with collected() as extra:
    ...     contribute(torch.tensor(2.0))
    ...     contribute(torch.tensor(0.5))
    >>> extra.total()
    tensor(2.5000)
    """
    token = _COLLECTOR.set(Collected())
    try:
        collector = _COLLECTOR.get()
        assert collector is not None
        yield collector
    finally:
        _COLLECTOR.reset(token)


def contribute(loss: Float[Tensor, ""]) -> None:
    """Add a scalar, already weighted, to what the innermost block collects; without one it is dropped."""
    collector = _COLLECTOR.get()
    if collector is not None:
        collector.losses.append(loss)
