"""What a rewritten stack says of itself: its entries follow the blocks that are in it."""

from __future__ import annotations

import dataclasses

from torch import nn

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
