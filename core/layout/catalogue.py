"""Every block by family: its names, what it is and can do, its options, source and cost, as the blocks themselves say.

A block is in the catalogue by being in its room's table. Families are what an application has places for; the blocks of
one family may come from several rooms (mixers: attention and convolution).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.attention import MIXERS, Mixer
from core.convolution import CONVOLUTIONS
from core.feedforward import FEEDFORWARDS, FeedForward, HiddenUnits
from core.norm import NORMS, Norm
from core.position import POSITIONS

ROOMS: dict[str, tuple[str, Mapping[str, type[Any]]]] = {
    "attention": ("mixer", MIXERS),
    "convolution": ("mixer", CONVOLUTIONS),
    "norm": ("norm", NORMS),
    "feedforward": ("feedforward", FEEDFORWARDS),
    "position": ("position", POSITIONS),
}
"""Room -> the family of its blocks, and their table."""
NEEDED = "needed"
"""In place of the default of an option that has none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What there is to know of a block.

    Attributes:
        family: what it can stand in for: mixer, norm, feedforward, position.
        name: in the table of its room.
        room: of ``core``.
        block: its class.
        line: what it is.
        capabilities: what it can do beyond the least, in words.
        options: its constructor's arguments besides the width, with their defaults as Python writes them.
        source: whose idea it is.
        cost: see :class:`core.attention.Mixer`; of a norm in words.
    """

    family: str
    name: str
    room: str
    block: str
    line: str
    capabilities: tuple[str, ...]
    options: Mapping[str, str]
    source: str
    cost: str


def rows() -> tuple[Row, ...]:
    """A row for every name in the rooms' tables, room by room.

    >>> next(row.cost for row in rows() if row.name == "softmax")
    '4 N D^2 + 2 N^2 D'
    """
    return tuple(
        row_of(block, family=family, room=room, name=name)
        for room, (family, table) in ROOMS.items()
        for name, block in table.items()
    )


def row_of(block: type[Any], *, family: str, room: str, name: str) -> Row:
    """The row of one block.

    >>> from core.norm import LayerNorm
    >>> row_of(LayerNorm, family="norm", room="norm", name="layernorm").options
    {'eps': '1e-05', 'affine': 'True', 'bias': 'True'}
    """
    return Row(
        family=family,
        name=name,
        room=room,
        block=block.__name__,
        line=" ".join(inspect.cleandoc(block.__doc__ or "").partition("\n\n")[0].split()),
        capabilities=capabilities(block, name),
        options=options(block),
        source=block.source,
        cost=block.cost,
    )


def capabilities(block: type[Any], name: str) -> tuple[str, ...]:
    """What a block declares of itself, in words.

    >>> from core.position import Rotary
    >>> capabilities(Rotary, "rotary")
    ('in nala, softmax, topk',)
    """
    if issubclass(block, Mixer):
        plugs = [kind for kind in block.positions if kind != "none"]
        return (*block.capabilities.words, *([f"takes {' and '.join(plugs)}"] if plugs else []))
    if issubclass(block, Norm):
        reach = "whole sequences" if block.by_sequence else "each token alone outside training"
        return (reach, *(["told the step"] if hasattr(block, "at_step") else []))
    if issubclass(block, FeedForward):
        cut = ["units can be cut and nested"] if issubclass(block, HiddenUnits) else []
        padding = ["leaves padding out"] if block.reads_mask else []
        return (*cut, *padding, *(["on a grid"] if block.reads_grid else []))
    return (f"in {', '.join(host for host, mixer in MIXERS.items() if name in mixer.positions)}",)


def options(block: type[Any]) -> dict[str, str]:
    """The options of a block with their defaults; none of what the block itself is given by another, as positions are.

    >>> from core.attention import Linformer
    >>> list(options(Linformer).items())[:3]
    [('heads', 'needed'), ('tokens', 'needed'), ('k', 'None')]
    """
    parameters = inspect.signature(block).parameters
    if "width" not in parameters:
        return {}
    return {name: _default(p.default) for name, p in parameters.items() if name != "width"}


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return NEEDED
    return repr(dict(value) if isinstance(value, Mapping) else value)
