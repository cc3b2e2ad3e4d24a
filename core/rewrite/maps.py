"""The linear maps of a model's blocks: what passes that replace linear maps choose from.

Only maps that a block names (``input_maps``, ``output_maps``) are certain to be called, and not read by their weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from core.attention import Mixer
from core.errors import InputError
from core.feedforward import FeedForward


def block_maps(model: nn.Module) -> dict[str, nn.Module]:
    """The maps by which blocks read and write, by their paths in the model.

    >>> from core.layout import Entry, build
    >>> [*block_maps(build((Entry("mixer", "softmax", {"heads": 2}),), width=8))]
    ['sublayers.0.block.qkv', 'sublayers.0.block.out']
    """
    named: set[int] = set()
    for block in model.modules():
        if isinstance(block, Mixer | FeedForward):
            named |= {id(each) for each in (*block.input_maps(), *block.output_maps())}
    return {path: module for path, module in model.named_modules() if id(module) in named}


def chosen_maps(model: nn.Module, patterns: Sequence[str], where: str) -> dict[str, nn.Module]:
    """Those of :func:`block_maps` whose path matches a pattern (:mod:`fnmatch`); all of them without a pattern.

    Raises:
        InputError: a pattern that matches none, or a model without such maps.
    """
    maps = block_maps(model)
    if not maps:
        raise InputError("the model has no block with linear maps", where=where)
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in maps):
            known = ", ".join(sorted({f"*.{path.rpartition('.')[2]}" for path in maps}))
            raise InputError(f"no linear map is called {pattern!r}", where=where, mend=f"there are {known}")
    return {
        path: module
        for path, module in maps.items()
        if not patterns or any(fnmatchcase(path, pattern) for pattern in patterns)
    }
