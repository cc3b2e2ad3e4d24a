"""Building a block from its options as a configuration gives them: every complaint is one line that says where."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from core.errors import InputError, nearest

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def construct(block: type[ModuleT], width: int, options: Mapping[str, Any], where: str) -> ModuleT:
    """``block(width, **options)``.

    Raises:
        InputError: an option that the block does not have, one that it needs and does not get, or a value it refuses.

    >>> construct(nn.Linear, 3, {"out_features": 2}, "a layer").weight.shape
    torch.Size([2, 3])
    """
    parameters = dict(list(inspect.signature(block).parameters.items())[1:])
    for name in options:
        if name not in parameters:
            raise InputError(f"no option {name!r}", where=where, mend=nearest(name, list(parameters)))
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in options]
    if missing:
        raise InputError(f"needs the option {missing[0]!r}", where=where)
    try:
        return block(width, **options)
    except (TypeError, ValueError) as error:
        raise InputError(str(error), where=where) from error
