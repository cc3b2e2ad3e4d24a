"""Linear maps of low rank (Low-Rank Transformer: Winata et al., ICASSP 2020; Greenformers).

    y = D (E x) + b,   E in R^(r x m), D in R^(n x r)         r (m + n) + n parameters instead of m n + n

which is fewer below the break-even rank m n / (m + n). A trained map W is replaced by its best approximation of that
rank, from the singular value decomposition W = U S V^T (Eckart and Young): E = S_r V_r^T, D = U_r; the error, in the
Frobenius norm, is that of the singular values left out. Computed in float64 and cast once.

The public program, github.com/SamuelCahyawijaya/greenformer, factorises with random starts by default, and its singular
values are approximate; not taken over: its other solvers, and convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from core.initialisation import uniform_fan_in_

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def break_even_rank(inputs: int, outputs: int) -> int:
    """The highest rank at which a map from m to n numbers has no more weights than a full one.

    >>> break_even_rank(256, 1024)
    204
    """
    return inputs * outputs // (inputs + outputs)


class LowRankLinear(nn.Module):
    """A linear map through r numbers; the bias is in the second factor.

    Args:
        inputs: m.
        outputs: n.
        rank: r.
        bias: whether there is b.

    Raises:
        InputError: a rank below 1.

    >>> sum(p.numel() for p in LowRankLinear(8, 6, 2).parameters())
    34
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        if rank < 1:
            raise InputError(f"the rank must be at least 1, not {rank}", where="low rank")
        self.first, self.second = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias)
        uniform_fan_in_(self.first)
        uniform_fan_in_(self.second)

    @classmethod
    def of(cls, linear: nn.Linear, rank: int) -> LowRankLinear:
        """The best approximation of ``linear`` of that rank, with its bias, dtype and device."""
        low = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None).to(linear.weight)
        with torch.no_grad():
            left, values, right = torch.linalg.svd(linear.weight.double(), full_matrices=False)
            kept = min(rank, len(values))
            # Beyond the full rank there is nothing to approximate: the rest of the factors is zero.
            low.first.weight.zero_()[:kept].copy_(values[:kept, None] * right[:kept])
            low.second.weight.zero_()[:, :kept].copy_(left[:, :kept])
            if linear.bias is not None:
                low.second.bias.copy_(linear.bias)
        return low

    def forward(self, x: Float[Tensor, "*shape m"]) -> Float[Tensor, "*shape n"]:
        """Map every vector."""
        y: Tensor = self.second(self.first(x))
        return y


def factorise(model: ModuleT, rank: int | float, names: Sequence[str]) -> ModuleT:
    """A copy of ``model`` in which the named linear maps have a low rank, where that makes them smaller.

    Args:
        model: stays as it is.
        rank: 1 or more: that rank; less: this share of the break-even rank.
        names: patterns (:mod:`fnmatch`) of module names, such as ``*.qkv``; of what they match, plain linear maps are
            replaced. Their weights must not be read by the module around them.

    Raises:
        InputError: a rank that is not positive, or a pattern that matches no linear map, whether full or factorised.

    >>> from core.layout import Entry, build
    >>> stack = build((Entry("mixer", "softmax", {"heads": 2}),), width=64)
    >>> low = factorise(stack, 0.5, ["*.qkv", "*.out"])
    >>> stack.parameter_count(), low.parameter_count()
    (16768, 8576)
    """
    if not rank > 0:
        raise InputError(f"the rank must be positive, not {rank}", where="low rank")
    result = copy.deepcopy(model)
    modules = {name: m for name, m in result.named_modules() if isinstance(m, nn.Linear | LowRankLinear)}
    for pattern in names:
        if not any(fnmatchcase(name, pattern) for name in modules):
            raise InputError(f"no linear map is called {pattern!r}", where="low rank")
    for name, linear in modules.items():
        if type(linear) is not nn.Linear or not any(fnmatchcase(name, pattern) for pattern in names):
            continue
        most = break_even_rank(linear.in_features, linear.out_features)
        wanted = int(rank) if rank >= 1 else max(1, int(rank * most))
        if wanted < linear.in_features * linear.out_features / (linear.in_features + linear.out_features):
            owner, _, attribute = name.rpartition(".")
            setattr(result.get_submodule(owner), attribute, LowRankLinear.of(linear, wanted))
    return result
