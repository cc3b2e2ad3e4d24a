"""The linear maps of a model's blocks: what passes that replace linear maps choose from.

Only maps that a block names (``input_maps``, ``output_maps``) are certain to be called, and not read by their weight;
those few that a block reads by their weight all the same are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from core.attention import Mixer
from core.errors import InputError
from core.feedforward import Experts, FeedForward, HiddenUnits
from core.rewrite.base import ModuleT


def block_maps(model: nn.Module) -> dict[str, nn.Module]:
    """The maps by which blocks read and write, by their paths in the model.

    >>> from core.layout import Entry, build
    >>> [*block_maps(build((Entry("mixer", "softmax", {"heads": 2}),), width=8))]
    ['sublayers.0.block.qkv', 'sublayers.0.block.out']
    """
    named: set[int] = set()
    read: set[int] = set()
    for block in model.modules():
        if isinstance(block, Mixer | FeedForward):
            named |= {id(each) for each in (*block.input_maps(), *block.output_maps())}
            read |= {id(each) for each in _read_by_weight(block)}
    return {path: module for path, module in model.named_modules() if id(module) in named - read}


def _read_by_weight(block: nn.Module) -> Sequence[nn.Module]:
    """Maps that a block names and yet takes apart: a router's, and those of a nested block, whose rows it counts."""
    if isinstance(block, Experts):
        units = [each for each in block.experts if isinstance(each, HiddenUnits)]
        return [each.up for each in units] if block.router is None else [block.router]
    if isinstance(block, HiddenUnits) and (block.nested or block.chosen is not None):
        return [block.up, block.down]
    return []


def chosen_maps(model: nn.Module, patterns: Sequence[str], where: str) -> dict[str, nn.Module]:
    """Those of :func:`block_maps` whose path, or last name, matches a pattern (:mod:`fnmatch`); all without a pattern.

    Raises:
        InputError: a pattern that matches none, or a model without such maps.
    """
    maps = block_maps(model)
    if not maps:
        raise InputError("the model has no block with linear maps", where=where)
    return matching(maps, patterns, where, "linear map")


def matching(named: Mapping[str, ModuleT], patterns: Sequence[str], where: str, what: str) -> dict[str, ModuleT]:
    """Those of some modules whose path, or last name, matches a pattern (:mod:`fnmatch`); all without a pattern.

    Raises:
        InputError: a pattern that matches none.

    >>> [*matching({"0.up": nn.Identity(), "0.down": nn.Identity()}, ("up",), "low_rank", "linear map")]
    ['0.up']
    """
    for pattern in patterns:
        if not any(_matches(path, pattern) for path in named):
            known = ", ".join(sorted({path.rpartition(".")[2] for path in named}))
            raise InputError(f"no {what} is called {pattern!r}", where=where, mend=f"there are {known}")
    return {
        path: module
        for path, module in named.items()
        if not patterns or any(_matches(path, pattern) for pattern in patterns)
    }


def fitting(
    named: Mapping[str, ModuleT],
    patterns: Sequence[str],
    unfit: Callable[[ModuleT], str | None],
    *,
    where: str,
    what: str,
    mend: str,
) -> dict[str, ModuleT]:
    """Those of some modules (at least one) that match a pattern and fit.

    Args:
        named: by their paths.
        patterns: as of :func:`matching`.
        unfit: why a module does not fit; None where it does.
        where: the pass.
        what: the modules, in words.
        mend: what would fit.

    Raises:
        InputError: a pattern that matches none, or only such as do not fit: the reason of the first of these.
    """
    reasons = {path: unfit(module) for path, module in matching(named, patterns, where, what).items()}
    for pattern in patterns or ("*",):
        first, *others = [path for path in reasons if _matches(path, pattern)]
        if all(reasons[path] for path in (first, *others)):
            raise InputError(f"{first}: {reasons[first]}", where=where, mend=mend)
    return {path: named[path] for path, reason in reasons.items() if reason is None}


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path.rpartition(".")[2], pattern)
