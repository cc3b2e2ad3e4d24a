"""Layouts as data: which sublayers a stack has, in which order, and which of them are repeated or shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import InputError
from core.layout.residual import Placement

Kind = Literal["mixer", "feedforward"]


@dataclass(frozen=True)
class Entry:
    """One residual sublayer. ``dataclasses.asdict`` gives it as plain data.

    Attributes:
        kind: the table that ``name`` comes from: ``core.attention.MIXERS`` with ``core.convolution.CONVOLUTIONS``, or
            ``core.feedforward.FEEDFORWARDS``.
        name: the block's name there.
        options: the block's constructor arguments besides the width.
        norm: name in ``core.norm.NORMS``; ``placement="none"`` builds none.
        placement: where the norm is, see ``core.layout.residual``.
        drop: dropout on what the sublayer adds to the stream.
        drop_path: probability of dropping all that the sublayer adds to a sequence, in training.
        share: entries with equal keys are one sublayer, its norms included, and must be equal in everything. A repeated
            entry with a key is therefore a loop over the same weights; one without gets new weights each time.
        share_norms: False shares the block alone: each entry has its own norms, and need be equal in kind, name and
            options only.
        norm_options: the norm's constructor arguments besides the width.
        scale: learned scale and shift of what the block reads, see ``core.layout.scale``.
        factor: of what the sublayer adds to the stream.

    >>> Entry("mixer", "softmax", {"heads": 8}).placement
    'pre'
    """

    kind: Kind
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    norm: str = "layernorm"
    placement: Placement = "pre"
    drop: float = 0.0
    share: str | None = None
    norm_options: Mapping[str, Any] = field(default_factory=dict)
    scale: bool = False
    factor: float = 1.0
    share_norms: bool = True
    drop_path: float = 0.0


@dataclass(frozen=True)
class Repeat:
    """``entries``, in order, ``times`` times."""

    entries: tuple[Entry | Repeat, ...]
    times: int


Layout = tuple[Entry | Repeat, ...]


def rising(last: float, blocks: int) -> tuple[float, ...]:
    """Rates of stochastic depth that rise evenly over the blocks of a network, from 0 to ``last``.

    >>> rising(0.5, 3)
    (0.0, 0.25, 0.5)
    >>> rising(0.5, 1)
    (0.0,)
    """
    return tuple(last * index / max(1, blocks - 1) for index in range(blocks))


def flatten(layout: Layout) -> Iterator[Entry]:
    """The entries in the order in which they are applied.

    Raises:
        InputError: a repeat of fewer than zero times.

    >>> mixer, mlp = Entry("mixer", "softmax", {"heads": 2}), Entry("feedforward", "mlp", {"hidden": 8})
    >>> [entry.name for entry in flatten((mixer, Repeat((mlp, mixer), 2)))]
    ['softmax', 'mlp', 'softmax', 'mlp', 'softmax']
    """
    for item in layout:
        if isinstance(item, Entry):
            yield item
            continue
        if item.times < 0:
            raise InputError(f"cannot repeat {item.times} times", where="layout")
        for _ in range(item.times):
            yield from flatten(item.entries)
