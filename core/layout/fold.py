"""Folding input scales away, for inference.

    W (a * x + b) + c = W' x + c',   W' = W diag(a),   c' = c + W b

The scale a and shift b of ``core.layout.scale`` move into the linear maps by which a block reads its input (queries,
keys and values of an attention, ``up`` of a feed-forward, the first point-wise map of a convolution module). A block
names them by the method ``input_maps``. Computed in float64 and cast once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from core.errors import InputError
from core.layout.residual import Residual
from core.layout.stack import Stack
from core.norm.base import fold_affine


@runtime_checkable
class ReadsLinearly(Protocol):
    """A block that reads its input through linear maps only."""

    def input_maps(self) -> Sequence[nn.Module]:
        """Those maps; none where something else reads the input as well."""
        ...


def fold_scales(stack: Stack) -> Stack:
    """A copy of ``stack`` that computes the same without its input scales; for inference.

    Raises:
        InputError: a scaled block that does not read its input through linear maps.

    >>> from core.layout import Entry, build
    >>> stack = build((Entry("feedforward", "mlp", {"hidden": 16}, scale=True),), width=8)
    >>> stack.parameter_count() - fold_scales(stack).parameter_count()
    16
    """
    folded = copy.deepcopy(stack)
    for sublayer in folded.sublayers:
        if isinstance(sublayer, Residual):
            fold_scale_(sublayer)
    return folded


def fold_scale(sublayer: Residual) -> Residual:
    """The same for one sublayer."""
    folded = copy.deepcopy(sublayer)
    fold_scale_(folded)
    return folded


def can_fold(sublayer: Residual) -> bool:
    """Whether its block reads the input through linear maps alone, so that a scale can move into them."""
    return bool(_maps(sublayer.block))


def _maps(block: nn.Module) -> Sequence[nn.Linear]:
    maps = block.input_maps() if isinstance(block, ReadsLinearly) else ()
    linear = [each for each in maps if isinstance(each, nn.Linear)]
    return linear if len(linear) == len(maps) else ()


def fold_scale_(sublayer: Residual) -> None:
    """The same in place: weights are overwritten where they lie."""
    if sublayer.scale is None:
        return
    scale, block = sublayer.scale, sublayer.block
    maps = _maps(block)
    if not maps:
        raise InputError(f"the input scale of {type(block).__name__} cannot be folded", where="layout")
    for linear in maps:
        folded = fold_affine(linear, scale.gain, scale.bias)
        with torch.no_grad():
            linear.weight.copy_(folded.weight)
            if linear.bias is not None:
                linear.bias.copy_(folded.bias)
        if linear.bias is None:
            linear.bias = folded.bias
    sublayer.scale = None
