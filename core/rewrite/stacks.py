"""Stacks that were rewritten: entries that follow the blocks that are in them; sublayers left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from torch import nn

from core.errors import InputError
from core.layout import Entry, Residual, Stack
from core.layout.build import TABLES
from core.norm import NORMS, Norm
from core.rewrite.base import ModuleT, blocks_of


def relabelled(model: ModuleT) -> ModuleT:
    """``model`` itself, the entries of its stacks naming the blocks, norms and input scales that are there.

    >>> from core.layout import Entry, build
    >>> stack = build((Entry("feedforward", "mlp", {"hidden": 8}),), 4)
    >>> stack.sublayers[0].block = TABLES["feedforward"]["glu"](4, 8)
    >>> relabelled(stack).entries[0].name
    'glu'
    """
    for stack in blocks_of(model, Stack).values():
        pairs = zip(stack.entries, stack.sublayers, strict=True)
        stack.entries = tuple(_labelled(entry, sublayer) for entry, sublayer in pairs)
    return model


def _labelled(entry: Entry, sublayer: nn.Module) -> Entry:
    assert isinstance(sublayer, Residual)
    block = name_of(sublayer.block, TABLES[entry.kind])
    if block in TABLES[entry.kind] and block != entry.name:
        entry = dataclasses.replace(entry, name=block, options={})
    entry = dataclasses.replace(entry, scale=sublayer.scale is not None)
    if entry.placement != "pre":
        return entry
    norm, options = sublayer.norms[0], dict(entry.norm_options)
    assert isinstance(norm, Norm)
    name = name_of(norm, NORMS)
    if name != entry.norm:
        options = {"eps": norm.eps}
    if getattr(norm, "weight", norm) is None:
        options |= {"affine": False}
    return dataclasses.replace(entry, norm=name, norm_options=options)


def name_of(module: nn.Module, table: Mapping[str, type[nn.Module]]) -> str:
    """Of a module's class in a table; where it is not there, the class's own."""
    return next((name for name, kind in table.items() if type(module) is kind), type(module).__name__)


def shorten(stack: Stack, gone: Collection[int]) -> None:
    """Leave out the sublayers applied at some positions, in place; the stream passes there as it is.

    Sublayers that are applied nowhere any more go with their weights; the others keep their order.

    Raises:
        InputError: a stack with steps between its sublayers, which are counted by position.
    """
    if len(stack.recodings):
        raise InputError("a stack with steps between its sublayers cannot be shortened", where="stack")
    order = [index for position, index in enumerate(stack.order) if position not in gone]
    kept = sorted(set(order))
    stack.entries = tuple(stack.entries[index] for index in kept)
    stack.sublayers = nn.ModuleList([stack.sublayers[index] for index in kept]).train(stack.training)
    stack.order = tuple(kept.index(index) for index in order)


def left_over(model: nn.Module, gone: Mapping[str, Collection[int]]) -> set[int]:
    """The modules (their ids) that no sublayer has any more once those at some positions of stacks are left out."""
    lost: set[int] = set()
    used: set[int] = set()
    for path, stack in blocks_of(model, Stack).items():
        order = {index for position, index in enumerate(stack.order) if position not in gone.get(path, ())}
        for index, sublayer in enumerate(stack.sublayers):
            (used if index in order else lost).update(id(each) for each in sublayer.modules())
    return lost - used
