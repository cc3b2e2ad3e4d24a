"""Entries to modules: names are looked up in the rooms' tables, options checked, shared sublayers built once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from core.attention import MIXERS
from core.construction import construct
from core.convolution import CONVOLUTIONS
from core.errors import InputError, nearest
from core.feedforward import FEEDFORWARDS
from core.layout.entries import Entry, Layout, flatten
from core.layout.residual import NORM_COUNTS, Residual
from core.layout.scale import InputScale
from core.layout.stack import Stack
from core.norm import NORMS, norm_named

TABLES: dict[str, Mapping[str, type[nn.Module]]] = {"mixer": {**MIXERS, **CONVOLUTIONS}, "feedforward": FEEDFORWARDS}


def build(layout: Layout, width: int) -> Stack:
    """The stack that ``layout`` describes, with freshly initialised blocks (each initialises itself).

    Raises:
        InputError: an unknown kind, name, norm, placement or option, a missing option, a value that a block refuses, or
            entries that share a key and differ.

    >>> block = (Entry("mixer", "softmax", {"heads": 2}), Entry("feedforward", "mlp", {"hidden": 32}))
    >>> build(block, width=8).parameter_count()
    872
    """
    order: list[int] = []
    unique: list[Entry] = []
    first_of: dict[str, int] = {}
    for entry in flatten(layout):
        first = None if entry.share is None else first_of.get(entry.share)
        if first is not None:
            _check_shared(unique[first], entry)
        if first is not None and entry.share_norms:
            order.append(first)
            continue
        if entry.share is not None:
            first_of.setdefault(entry.share, len(unique))
        order.append(len(unique))
        unique.append(entry)
    sublayers: list[Residual] = []
    for index, entry in enumerate(unique):
        first = index if entry.share is None else first_of[entry.share]
        sublayers.append(_sublayer(entry, width, sublayers[first].block if first < index else None))
    return Stack(width, unique, sublayers, order)


def _check_shared(first: Entry, entry: Entry) -> None:
    """Entries with one key agree in what they share."""
    same = first == entry
    if not (first.share_norms or entry.share_norms):
        same = (first.kind, first.name, first.options) == (entry.kind, entry.name, entry.options)
    if not same:
        raise InputError(f"entries that share the key {entry.share!r} differ", where="layout")


def _sublayer(entry: Entry, width: int, block: nn.Module | None) -> Residual:
    """The residual sublayer of one entry, around ``block`` or one of its own."""
    where = f"layout, {entry.kind} {entry.name!r}"
    _known(entry.kind, TABLES, "kind", "layout")
    _known(entry.name, TABLES[entry.kind], entry.kind, "layout")
    _known(entry.placement, NORM_COUNTS, "placement", where)
    _known(entry.norm, NORMS, "norm", where)
    for option in ("drop", "drop_path"):
        if not 0.0 <= getattr(entry, option) < 1.0:
            raise InputError(f"{option} {getattr(entry, option)} is outside [0, 1)", where=where)
    if entry.scale and not entry.share_norms:
        raise InputError("a block that is shared without its norms takes no input scale", where=where)
    block = block or construct(TABLES[entry.kind][entry.name], width, entry.options, where)
    norms = [norm_named(entry.norm, width, entry.norm_options, where) for _ in range(NORM_COUNTS[entry.placement])]
    scale = InputScale(width) if entry.scale else None
    dropped = {"drop": entry.drop, "drop_path": entry.drop_path}
    return Residual(block, entry.placement, *norms, **dropped, scale=scale, factor=entry.factor)


def _known(name: str, table: Mapping[str, Any], what: str, where: str) -> None:
    if name not in table:
        raise InputError(f"no {what} {name!r}", where=where, mend=nearest(name, list(table)))
