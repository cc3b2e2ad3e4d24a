"""Norm-aware linear attention, NaLa (NaLaFormer, arXiv 2506.21137, github.com/ZacharyMeng/NaLaFormer).

    p_i = 3 (0.5 + tanh ||q_i||)
    f(q) = [ relu(q/||q||)^p ; relu(-q/||q||)^p ],   g(k) = [ relu(k^3) ; relu(-k^3) ]              "signs"
    s_ij = f(q_i) . g(k_j) >= 0,   y_i = sum_j s_ij v_j / (sum_j s_ij + N 1e-6)

In ordinary linear attention the norm of a query cancels, so that all queries are equally sharp. Here it sets the
exponent: the longer a query, the sharper its weights, up to a limit. With rotary positions the numerator has features
turned half by half, the denominator plain ones, as in the public code: weights then no longer add up to 1.

``"signs"`` is the public code. ``"trigonometric"`` is the paper's map, as third parties read it:

    f(q) = |q/||q|||^p [ cos a(q) ; sin a(q) ],   g(k) = |k|^3 [ cos a(k) ; sin a(k) ],   a(x) = pi/4 x/||x||

the angles' scale is ours: with |a| <= pi/4 weights cannot be negative. ``"relu"``, f = relu(q), g = relu(k), is plain
linear attention, to compare.

Computed in float32 at least. Cost O(N D^2/H) for all heads. Initialisation: truncated normal of deviation 0.02, biases
0. Deviations: an eps in ||q||, where the code divides by 0; positions along one axis. Not taken over: the block around
it (gate, depth-wise convolutions, norms), which has a part in the published figures, as has softmax attention, which
their models use in most blocks.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities
from core.attention.headed import HeadedAttention
from core.attention.linear import linear_attention
from core.errors import InputError, nearest
from core.position import rotate

FeatureMap = Literal["signs", "trigonometric", "relu"]

_POWER, _SHIFT, _TINY = 3.0, 0.5, 1e-12

# Features come in parts of the width of a head, each of which can be turned by its position.
Parts = tuple[Tensor, ...]


def nala_features(
    q: Float[Tensor, "*heads N d"], k: Float[Tensor, "*heads M d"], kind: FeatureMap
) -> tuple[Parts, Parts]:
    """The parts of f(q) and of g(k), each of the shape of what it is of.

    >>> (above, below), _ = nala_features(torch.tensor([[3.0, -4.0]]), torch.zeros(1, 2), "signs")
    >>> bool(above[0, 1] == 0), bool(below[0, 0] == 0)
    (True, True)
    """
    if kind == "relu":
        return (F.relu(q),), (F.relu(k),)
    length, toward = _polar(q)
    size = toward.abs() ** (_POWER * (_SHIFT + torch.tanh(length)))
    if kind == "signs":
        # One power and not one for each sign: they, and on the way back their logarithms, are most of a feature's cost.
        above, cubed = toward > 0, k**3
        return (size.where(above, 0.0), size.where(~above, 0.0)), (F.relu(cubed), F.relu(-cubed))
    cubed = k.abs() ** 3
    angle, other = toward * (math.pi / 4), _polar(k)[1] * (math.pi / 4)
    return (size * angle.cos(), size * angle.sin()), (cubed * other.cos(), cubed * other.sin())


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Norm and direction; of zero, almost zero and zero."""
    length = (x.square().sum(-1, keepdim=True) + _TINY).sqrt()
    return length, x / length


class NaLaAttention(HeadedAttention):
    """Norm-aware linear attention, with the linear maps of softmax attention.

    Args:
        width: D.
        heads: H; divides D.
        causal: position i reads positions <= i only.
        features: "signs", "trigonometric" or "relu".
        position: "none" or "rotary"; the public code has the latter, in two dimensions.
        bias: biases in both maps.
        project: False leaves out the output projection.

    Raises:
        InputError: ``heads`` does not divide ``width``, or no such ``features`` or ``position``.

    >>> NaLaAttention(8, 2)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    capabilities = Capabilities(causal=True, packed=True, masked=True)
    positions = ("none", "rotary")
    source = "NaLaFormer, arXiv 2506.21137; features 'trigonometric' [3rd]"
    cost = "4 N D^2 + 4 N D^2 / heads + 4 N D"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        features: FeatureMap = "signs",
        position: str = "none",
        bias: bool = True,
        project: bool = True,
    ) -> None:
        super().__init__(width, heads, causal=causal, bias=bias, project=project)
        for name, value, known in (
            ("features", features, get_args(FeatureMap)),
            ("position", position, self.positions),
        ):
            if value not in known:
                raise InputError(f"no {name} {value!r}", where="NaLa", mend=nearest(value, list(known)))
        self.features, self.position = features, position
        for linear in (self.qkv, self.out):
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)

    def attend(
        self,
        q: Float[Tensor, "B H N d"],
        k: Float[Tensor, "B H N d"],
        v: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B H N d"]:
        """Linear attention of the heads."""
        wide = torch.promote_types(q.dtype, torch.float32)
        queries, keys = nala_features(q.to(wide), k.to(wide), self.features)
        features, below = (torch.cat(queries, -1), torch.cat(keys, -1)), None
        if self.position == "rotary":
            below = features
            features = torch.cat([rotate(x) for x in queries], -1), torch.cat([rotate(x) for x in keys], -1)
        y = linear_attention(*features, v.to(wide), below=below, key_mask=mask, causal=self.causal)
        return y.to(v.dtype)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"heads={self.heads}, causal={self.causal}, features={self.features}, position={self.position}"
