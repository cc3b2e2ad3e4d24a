"""Tables instead of matrices (MemoryFormer, arXiv 2411.12992, NeurIPS 2024): a token's signs say which rows to add.

A memory layer cuts x in R^D into K chunks z_k of t numbers, K t = D, and has a table T_k of 2^t rows for each::

    h_k = the bits z >= 0, most significant first, as a number        p_k = prod over i of 1 / (1 + exp(-2 |z_ki|))
    y   = sum over k of p_k T_k[h_k] + b

p_k is the softmax of <z_k, s> over all sign vectors s, at the signs of z_k. K D' additions of rows replace D D'
multiplications; the tables hold 2^t / t times as many numbers as the matrix. Gradients go through p_k and into the rows
read; the signs are constant almost everywhere.

The feed-forward is layer, layer norm, layer, with no activation between: the first layer widens each chunk to t + e
numbers, from which the second takes t + e bits.

``score="l1_softmax"`` multiplies p_k by the sum of |z_k|, as the released program does; the paper does not. Rows start
at 0.02 times, the bias at 0.001 times standard normal numbers. What is read from the tables is added in float32 at
least, and stays there until the result: a rounding between the layers would change signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import InputError
from core.feedforward.base import FeedForward

Score = Literal["softmax", "l1_softmax"]


class MemoryLayer(nn.Module):
    """Tables read at the signs of chunks, ``(...,inputs) -> (...,outputs)``.

    Args:
        inputs: numbers of a token.
        outputs: numbers of a row.
        bits: t, numbers of a chunk; divides the inputs.
        score: weight of a row.

    Raises:
        InputError: bits that do not divide the inputs or make tables beyond 2^16 rows, or an unknown score.

    >>> layer = MemoryLayer(4, 3, bits=2)
    >>> rows, weights = layer.addressed(torch.zeros(4))
    >>> rows.tolist(), weights.tolist()  # both bits are ones, in the first table and in the second
    ([3, 7], [0.25, 0.25])
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"tables": "embedding", "bias": "bias"}

    def __init__(self, inputs: int, outputs: int, *, bits: int, score: Score = "softmax") -> None:
        super().__init__()
        if not 1 <= bits <= 16 or inputs % bits:
            raise InputError(f"{bits} bits are not a divisor of {inputs} in 1 to 16", where="memory")
        if score not in ("softmax", "l1_softmax"):
            raise InputError(f"no score {score!r}", where="memory", mend="softmax or l1_softmax")
        self.inputs, self.outputs, self.bits, self.score = inputs, outputs, bits, score
        self.chunks = inputs // bits
        self.tables = nn.Parameter(0.02 * torch.randn(self.chunks << bits, outputs))
        self.bias = nn.Parameter(0.001 * torch.randn(outputs))

    def addressed(self, x: Float[Tensor, "*tokens I"]) -> tuple[Int[Tensor, "*tokens K"], Float[Tensor, "*tokens K"]]:
        """Which rows of ``tables`` a token reads, one of each chunk's 2^t, and their weights, in float32 at least.

        Layers with equal inputs and bits can share them.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        z = wide.reshape(*x.shape[:-1], self.chunks, self.bits)
        places = 1 << torch.arange(self.bits - 1, -1, -1, device=x.device)
        first = torch.arange(self.chunks, device=x.device) << self.bits
        rows = ((z >= 0).to(torch.int64) * places).sum(-1) + first
        size = z.abs()
        weights = F.softplus(-2.0 * size).sum(-1).neg().exp()
        return rows, weights * size.sum(-1) if self.score == "l1_softmax" else weights

    def read(self, rows: Int[Tensor, "*tokens K"], weights: Float[Tensor, "*tokens K"]) -> Float[Tensor, "*tokens O"]:
        """The weighted sum of rows and the bias, in the dtype of the weights."""
        tables, flat = self.tables.to(weights.dtype), rows.reshape(-1, self.chunks)
        many = weights.reshape(-1, self.chunks)
        if torch.compiler.is_compiling():
            y = (many[:, :, None] * tables[flat]).sum(1)
        else:
            y = F.embedding_bag(flat, tables, mode="sum", per_sample_weights=many)
        return y.view(*rows.shape[:-1], self.outputs) + self.bias.to(weights.dtype)

    def forward(self, x: Float[Tensor, "*tokens I"]) -> Float[Tensor, "*tokens O"]:
        """Read the tables for every token."""
        return self.read(*self.addressed(x)).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        return f"{self.inputs}, {self.outputs}, bits={self.bits}, score={self.score}"


class Memory(FeedForward):
    """Two memory layers with a layer norm between them.

    Args:
        width: D.
        bits: t of the first layer; divides the width. None is the largest divisor up to 8.
        extra_bits: e, by which the second layer has more bits.
        score: weight of a row, see the module.
        eps: of the norm.

    Raises:
        InputError: bits that do not divide the width, or tables beyond 2^16 rows.

    >>> Memory(16)(torch.zeros(2, 5, 16)).shape
    torch.Size([2, 5, 16])
    """

    source = "MemoryFormer, arXiv 2411.12992"
    cost = "0; about 2 N D^2 / bits additions of what is read from tables"

    def __init__(
        self,
        width: int,
        *,
        bits: int | None = None,
        extra_bits: int = 2,
        score: Score = "softmax",
        eps: float = 1e-5,
    ) -> None:
        super().__init__(width)
        if extra_bits < 0:
            raise InputError(f"extra_bits {extra_bits} are negative", where="memory")
        if bits is None:
            bits = next(number for number in range(8, 0, -1) if width % number == 0)
        if bits < 1 or width % bits:
            raise InputError(f"{bits} bits do not divide the width {width}", where="memory")
        hidden = width // bits * (bits + extra_bits)
        self.first = MemoryLayer(width, hidden, bits=bits, score=score)
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.second = MemoryLayer(hidden, width, bits=bits + extra_bits, score=score)

    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
        hidden = self.first.read(*self.first.addressed(x))
        norm, kind = self.norm, hidden.dtype
        normed = F.layer_norm(hidden, norm.normalized_shape, norm.weight.to(kind), norm.bias.to(kind), norm.eps)
        return self.second.read(*self.second.addressed(normed)).to(x.dtype)
