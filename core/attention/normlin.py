"""NormLin: a learned, normalised matrix between the positions (OLinear, github.com/jackyue1994/OLinear).

    y = W_o (A (W_v x)),   A_ij = softplus(W_ij) / sum_l softplus(W_il),   W in R^(N x N), the same for all data

A stands where softmax attention has its probabilities; there the positions are the variates of a time series. W starts
at I + N(0, 1). Dropout is of A, in training. With masks or causality rows are renormalised over the keys that are read
(ours, ``core.attention.fixed``). Parameters N^2 + 2 D^2 + 2 D, cost N^2 D, for one N only.

Not taken over: the prior from a covariance matrix, and heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities, Mixer
from core.attention.fixed import restricted_rows
from core.errors import InputError
from core.initialisation import uniform_fan_in_
from core.kernels import dropout as drop


class NormLin(Mixer):
    """Positions added up with learned weights, between two linear maps.

    Args:
        width: D.
        tokens: N.
        causal: position i reads positions <= i only.
        dropout: probability of dropping a weight of A, in training.

    Raises:
        InputError: ``dropout`` outside [0, 1).

    >>> NormLin(4, tokens=3)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"weight": "matrix"}
    capabilities = Capabilities(causal=True, fixed_length=True, masked=True, pairwise=True)
    source = "OLinear, github.com/jackyue1994/OLinear"
    cost = "2 N D^2 + N^2 D"

    def __init__(self, width: int, tokens: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__(width, tokens)
        if not 0.0 <= dropout < 1.0:
            raise InputError(f"dropout {dropout} is outside [0, 1)", where="NormLin")
        self.causal, self.dropout = causal, dropout
        self.weight = nn.Parameter(torch.eye(tokens) + torch.randn(tokens, tokens))
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        uniform_fan_in_(self.value)
        uniform_fan_in_(self.out)

    def rows(
        self, mask: Bool[Tensor, "B N"] | None = None, pair_mask: Bool[Tensor, "*B N N"] | None = None
    ) -> Float[Tensor, "*batch N N"]:
        """A: which part of each position (last axis) every position takes; rows add up to 1."""
        return restricted_rows(F.softplus(self.weight), mask, pair_mask, self.causal)

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Mix within each sequence."""
        rows = self.rows(mask, pair_mask)
        if self.training:
            rows = drop(rows, self.dropout)
        y: Tensor = self.out(rows @ self.value(x))
        return y

    def input_maps(self) -> Sequence[nn.Module]:
        """The map to the values alone reads x."""
        return (self.value,)

    def output_maps(self) -> Sequence[nn.Module]:
        """The output projection."""
        return (self.out,)

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        return f"tokens={self.tokens}, causal={self.causal}, dropout={self.dropout}"
