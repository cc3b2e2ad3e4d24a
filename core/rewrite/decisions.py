"""Reading decisions. They may come from a file: whatever is in one is checked before it is used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from core.errors import InputError
from core.rewrite.base import module_at

T = TypeVar("T")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def part(decision: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    """What a decision holds under ``key``, which must be of this kind.

    Raises:
        InputError: it is not there, or of another kind.

    >>> part({"ranks": {"0": 3}}, "ranks", dict, "low_rank")
    {'0': 3}
    """
    if not isinstance(decision, Mapping) or key not in decision:
        raise InputError(f"the decision holds no {key!r}", where=where)
    value = decision[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key!r} of the decision is no {kind.__name__}, but {_short(value)}", where=where)
    return value


def whole(value: Any, low: int, high: int, where: str) -> int:
    """A whole number in a range, its ends included.

    Raises:
        InputError: it is none.

    >>> whole(3, 1, 8, "low_rank")
    3
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"the decision says {_short(value)}, which is no number from {low} to {high}", where=where)
    return value


def wholes(value: Any, low: int, high: int, where: str) -> list[int]:
    """A list of whole numbers in a range.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, list | tuple):
        raise InputError(f"the decision says {_short(value)}, which is no list of numbers", where=where)
    return [whole(each, low, high, where) for each in value]


def number(value: Any, where: str) -> float:
    """A finite number.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise InputError(f"the decision says {_short(value)}, which is no number", where=where)
    return float(value)


def block_at(model: nn.Module, path: Any, kind: type[ModuleT], what: str) -> ModuleT:
    """The module of a class at a dotted path.

    Args:
        model: where it is.
        path: of the module.
        kind: its class.
        what: the class, in words.

    Raises:
        InputError: there is none, or one of another class.
    """
    module = module_at(model, str(path))
    if not isinstance(module, kind):
        raise InputError(f"is no {what}, but {type(module).__name__}", where=str(path))
    return module


def _short(value: Any) -> str:
    """A value in few letters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
