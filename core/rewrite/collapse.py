"""Attention with one head needs half of its matrices ("Reducing the Transformer architecture to a minimum", arXiv
2410.13732): the products W_Q W_K^T and W_V W_O stand for their factors.

    S = (x W_Q + b_Q)(x W_K + b_K)^T   ->   (x W_QK + b_Q W_K^T) x^T         what is left out is equal for all keys
    y = A (x W_V + b_V) W_O + b_O      ->   A x W_VO + b_V W_O + b_O         where A's row sums to 1

A query that may read nothing has a row of zeros: it gets b_O alone, so b_V W_O is kept apart, as a shift of those that
read any key. In training with dropout of attention the rows sum to 1 on average only, where b_V W_O was dropped with
them: then the pass is exact in evaluation. Attention without an output projection has W_O = I and b_O = 0.

4 D^2 weights become 2 D^2 (without an output projection 3 D^2). With H heads W_QK and W_VO would be H matrices each:
nothing is saved from two on, and such blocks are refused. Computed in float64 and cast once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.attention import MinimalAttention, Mixer, SoftmaxAttention
from core.attention.minimal import Similarity, Values
from core.errors import InputError
from core.position import Position
from core.rewrite.base import Evidence, ModuleT, Pass, Status, blocks_of, replaced
from core.rewrite.decisions import block_at, part
from core.rewrite.maps import fitting
from core.rewrite.stacks import relabelled

_Affine = tuple[Tensor, Tensor]
"""Weight and bias of a linear map in float64."""


@dataclass(frozen=True, kw_only=True)
class CollapseOptions:
    """Which to collapse."""

    blocks: tuple[str, ...] = ()
    """Patterns of paths of mixers, such as sublayers.0.*; all that fit unless given."""


class Collapse(Pass[CollapseOptions]):
    """Attention with one head keeps the products of its matrices."""

    name = "collapse"
    status = "exact"
    line = "attention with one head keeps W_Q W_K^T and W_V W_O in place of their factors"
    source = "arXiv 2410.13732; biases: ours"
    options = CollapseOptions

    def decide(self, model: nn.Module, options: CollapseOptions, evidence: Evidence) -> dict[str, Any]:
        """The blocks, and whether they are the same in training too."""
        mixers = blocks_of(model, Mixer)  # type: ignore[type-abstract]
        if not mixers:
            raise InputError("the model has no mixer", where=self.name)
        mend = "softmax with heads=1 and no positions fits, and minimal with qk or vo 'full'"
        chosen = fitting(mixers, options.blocks, _unfit, where=self.name, what="mixer", mend=mend)
        return {"blocks": [*chosen], "exact": not any(_drops_a_bias(block) for block in chosen.values())}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with minimal attention in place of the blocks."""
        made: dict[str, nn.Module] = {}
        for path in part(decision, "blocks", list, self.name):
            block = block_at(model, path, Mixer, "mixer")  # type: ignore[type-abstract]
            reason = _unfit(block)
            if reason or not isinstance(block, SoftmaxAttention | MinimalAttention):
                raise InputError(reason or "is no attention", where=str(path))
            made[str(path)] = collapsed(block)
        return relabelled(replaced(model, made))

    def statuses(self, decision: Mapping[str, Any]) -> Status:
        """Exact in evaluation alone, where training drops a bias of the values with their weights."""
        return "exact" if decision.get("exact") is True else "exact in evaluation"


def collapsed(block: SoftmaxAttention | MinimalAttention) -> MinimalAttention:
    """Minimal attention that computes the same, without gradients to ``block``.

    >>> x, block = torch.randn(2, 5, 8), SoftmaxAttention(8, 1)
    >>> torch.allclose(collapsed(block)(x), block(x), atol=1e-5)
    True
    """
    maps = _maps(block)
    qk: Similarity = "symmetric" if isinstance(block, MinimalAttention) and block.qk == "symmetric" else "collapsed"
    vo: Values = "none" if isinstance(block, MinimalAttention) and block.vo == "none" else "collapsed"
    options: dict[str, Any] = {"causal": block.causal, "dropout": block.dropout, "bias": _has_bias(block)}
    with torch.random.fork_rng(devices=[]):  # its start is written over
        small = MinimalAttention(block.width, qk=qk, vo=vo, **options)
    small = small.to(next(block.parameters())).train(block.training)
    with torch.no_grad():
        if small.query is None:
            assert isinstance(block, MinimalAttention)
            small.triangle.copy_(block.triangle)
        else:
            (weight, bias), key = maps["query"], maps["key"]
            _fill(small.query, (weight, bias) if key is None else (key[0].T @ weight, key[0].T @ bias))
        if small.out is not None:
            (weight, bias), value = maps["out"], maps["value"]
            _fill(small.out, (weight if value is None else weight @ value[0], bias))
            if small.shift is not None:
                given = block.shift if isinstance(block, MinimalAttention) else None
                small.shift.copy_(weight @ value[1] if given is None else given)
    return small


def _fill(linear: nn.Linear, values: _Affine) -> None:
    linear.weight.copy_(values[0])
    if linear.bias is not None:
        linear.bias.copy_(values[1])


def _maps(block: SoftmaxAttention | MinimalAttention) -> dict[str, Any]:
    """The four maps in float64; None where there is none, a missing output projection being the identity."""
    if isinstance(block, MinimalAttention):
        linears = {name: getattr(block, name) for name in ("query", "key", "value", "out")}
        return {name: None if each is None else _affine(each) for name, each in linears.items()}
    weight, bias = _affine(block.qkv)
    (wq, wk, wv), (bq, bk, bv) = weight.chunk(3), bias.chunk(3)
    # What is left of pruned heads is narrower than D, of which minimal attention takes the root.
    scale = math.sqrt(block.width / len(wq))
    eye = torch.eye(block.width, len(wv), dtype=torch.float64, device=weight.device)
    out = _affine(block.out) if isinstance(block.out, nn.Linear) else (eye, torch.zeros_like(eye[:, 0]))
    return {"query": (scale * wq, scale * bq), "key": (wk, bk), "value": (wv, bv), "out": out}


def _affine(linear: nn.Linear) -> _Affine:
    weight = linear.weight.detach().double()
    return weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().double()


def _linears(block: SoftmaxAttention | MinimalAttention) -> list[nn.Module]:
    if isinstance(block, SoftmaxAttention):
        return [block.qkv, *([] if isinstance(block.out, nn.Identity) else [block.out])]
    return [each for each in (block.query, block.key, block.value, block.out) if each is not None]


def _has_bias(block: SoftmaxAttention | MinimalAttention) -> bool:
    return any(getattr(each, "bias", None) is not None for each in _linears(block))


def _drops_a_bias(block: Mixer) -> bool:
    """Whether training drops values of which a part is a bias."""
    return isinstance(block, SoftmaxAttention | MinimalAttention) and block.dropout > 0.0 and _has_bias(block)


def _unfit(block: Mixer) -> str | None:
    """Why a mixer cannot be collapsed; None where it can."""
    if isinstance(block, MinimalAttention):
        if block.qk != "full" and block.vo != "full":
            return "nothing of it is left to collapse"
    elif type(block) is not SoftmaxAttention:
        return f"{type(block).__name__} is no softmax attention without positions"
    elif type(block.position) is not Position:
        return f"its scores hold positions ({type(block.position).__name__.lower()})"
    assert isinstance(block, SoftmaxAttention | MinimalAttention)
    if any(type(each) is not nn.Linear for each in _linears(block)):
        return "its maps are no plain linear ones any more"
    if isinstance(block, SoftmaxAttention):
        few, many = 2 * block.qkv.weight.numel() // 3, block.heads * block.width**2
        if many >= few:
            heads = f"{block.heads} head{'s' if block.heads > 1 else ''}"
            return f"the queries and keys of {heads} hold {few:,} weights, and their products would hold {many:,}"
    return None
