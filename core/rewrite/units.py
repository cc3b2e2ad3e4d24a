"""The feed-forwards whose hidden units passes divide, choose and leave out."""

from __future__ import annotations

from torch import nn

from core.errors import InputError
from core.feedforward import Experts, HiddenUnits
from core.rewrite.base import blocks_of
from core.rewrite.decisions import block_at


def altered(block: nn.Module) -> bool:
    """Whether a feed-forward of hidden units has other maps than those that it was made with."""
    return isinstance(block, HiddenUnits) and not (type(block.up) is nn.Linear and type(block.down) is nn.Linear)


def unfit_units(block: HiddenUnits) -> str | None:
    """Why hidden units cannot be taken from a block; None where they can."""
    if isinstance(block.down, nn.Identity):
        return "its hidden units are not projected"
    if altered(block):
        return "its maps are no plain linear ones any more"
    if block.chosen is not None:
        return "it computes with a chosen size"
    return None


def dense_blocks(model: nn.Module) -> dict[str, HiddenUnits]:
    """The feed-forwards of hidden units by their paths, those inside of experts left out."""
    inside = {id(each) for block in blocks_of(model, Experts).values() for each in block.experts}
    found = blocks_of(model, HiddenUnits)  # type: ignore[type-abstract]
    return {path: block for path, block in found.items() if id(block) not in inside}


def units_at(model: nn.Module, path: str, *, chosen: bool = False) -> HiddenUnits:
    """The feed-forward at a path, whose units can be taken; one that computes with a chosen size if ``chosen``.

    Raises:
        InputError: there is none.
    """
    block = block_at(model, path, HiddenUnits, "feed-forward of hidden units")  # type: ignore[type-abstract]
    reason = unfit_units(block)
    if reason is not None and not (chosen and not altered(block)):
        raise InputError(reason, where=path)
    return block
