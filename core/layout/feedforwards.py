"""The feed-forward that a configuration names, in a host that thinks in hidden units of a plain one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from core.errors import InputError, nearest
from core.feedforward import FEEDFORWARDS

# Three matrices of the width times the hidden units, instead of two.
_GATED = ("activator", "glu")


def feedforward_options(
    name: str, units: int, offered: Mapping[str, Any], *, grid: bool = False, where: str = "model.feedforward"
) -> dict[str, Any]:
    """The options of an entry for the feed-forward ``name``: its hidden units, and what it takes of what is offered.

    A gated block gets two thirds of the units, and so as many weights as a plain one; experts get the units each.

    Args:
        name: in ``core.feedforward.FEEDFORWARDS``.
        units: hidden units of a plain block in that place.
        offered: options that are dropped where the block's constructor has none of that name.
        grid: the tokens lie on a grid, which the host tells.
        where: the field that holds the name.

    Raises:
        InputError: no such feed-forward, or one that needs a grid where there is none.

    >>> feedforward_options("glu", 96, {"dropout": 0.1})
    {'hidden': 64, 'dropout': 0.1}
    >>> feedforward_options("memory", 96, {"dropout": 0.1})
    {}
    """
    if name not in FEEDFORWARDS:
        raise InputError(f"no feedforward {name!r}", where=where, mend=nearest(name, list(FEEDFORWARDS)))
    if FEEDFORWARDS[name].reads_grid and not grid:
        able = ", ".join(sorted(other for other, block in FEEDFORWARDS.items() if not block.reads_grid))
        raise InputError(f"{name!r} needs a grid of tokens", where=where, mend=f"these fit: {able}")
    everything = {"hidden": max(1, round(2 * units / 3)) if name in _GATED else units, **offered}
    taken = inspect.signature(FEEDFORWARDS[name]).parameters
    return {option: value for option, value in everything.items() if option in taken}
