"""Choosing the sizes of nested feed-forwards once they are trained: uniform, or mixed from layer to layer.

Any size of any layer may be chosen ("Mix'n'Match", arXiv 2310.07707), also combinations that were never trained
together; the authors advise sizes that change gently, and do not fall, from layer to layer [mem]. Sizes stay chosen
until they are chosen anew: no forward pass takes them back, and nothing outside the model knows them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from core.errors import InputError
from core.feedforward.units import HiddenUnits

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def nested_blocks(model: nn.Module) -> tuple[HiddenUnits, ...]:
    """The nested feed-forwards of ``model``, each once, in its order."""
    return tuple(block for block in model.modules() if isinstance(block, HiddenUnits) and block.nested)


def choose(model: nn.Module, shares: float | Sequence[float] | None) -> None:
    """Let the nested feed-forwards of ``model`` compute with these shares of their hidden units.

    Args:
        model: at least one feed-forward in it has ``nested`` shares.
        shares: one for all, or one for each; None gives all of them all their units (in training, drawn ones) again.

    Raises:
        InputError: no nested feed-forward, another number of shares, or a share outside (0, 1].
    """
    blocks = nested_blocks(model)
    if not blocks:
        raise InputError("no feed-forward of the model is nested", where="choose", mend="build it with nested shares")
    if shares is None or isinstance(shares, int | float):
        each: Sequence[float | None] = [shares] * len(blocks)
    else:
        each = shares
    if len(each) != len(blocks):
        raise InputError(f"{len(each)} shares for {len(blocks)} nested feed-forwards", where="choose")
    for share in each:
        if share is not None and not 0.0 < share <= 1.0:
            raise InputError(f"shares are in (0, 1], not {share}", where="choose")
    for block, share in zip(blocks, each, strict=True):
        block.choose(None if share is None else block.count_of(share))


def extract(model: ModuleT) -> ModuleT:
    """A copy of ``model`` whose nested feed-forwards are plain ones of the chosen sizes.

    >>> from core.feedforward import MLP
    >>> block = MLP(8, 32, nested=(0.25, 1.0)).eval()
    >>> choose(block, 0.25)
    >>> extract(block).hidden
    8
    """
    small = {block: block.slice(block.chosen or block.hidden) for block in nested_blocks(model)}
    # A block that stands in several places stays one.
    return copy.deepcopy(model, {id(block): replacement for block, replacement in small.items()})
