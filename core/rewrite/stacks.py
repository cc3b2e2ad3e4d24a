"""Stacks that were rewritten: entries that follow the blocks that are in them; sublayers left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from torch import nn

from core.errors import InputError
from core.layout import Stack
from core.layout.build import TABLES
from core.rewrite.base import ModuleT, blocks_of


def relabelled(model: ModuleT) -> ModuleT:
    """``model`` itself; where a block is not of the class that its entry names, the entry names the block's class.

    >>> from core.layout import Entry, build
    >>> stack = build((Entry("feedforward", "mlp", {"hidden": 8}),), 4)
    >>> stack.sublayers[0].block = TABLES["feedforward"]["glu"](4, 8)
    >>> relabelled(stack).entries[0].name
    'glu'
    """
    for stack in blocks_of(model, Stack).values():
        entries = list(stack.entries)
        for index, (entry, sublayer) in enumerate(zip(entries, stack.sublayers, strict=True)):
            block = sublayer.block
            assert isinstance(block, nn.Module)
            table = TABLES[entry.kind]
            names = [name for name, kind in table.items() if type(block) is kind]
            if names and table[entry.name] is not type(block):
                entries[index] = dataclasses.replace(entry, name=names[0], options={})
        stack.entries = tuple(entries)
    return model


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
